"""What POST /v1/fine_tuning/jobs refuses: call, code, param, a part of the message. Each is a 400."""

from typing import Any

from tests.contract.error_table import ROWS, Api, Call, creating


async def of_another_purpose(api: Api) -> None:
    await api.create(training_file=await api.upload(*ROWS, purpose="batch"))


def with_hyperparameters(**values: Any) -> Call:
    return creating(hyperparameters=values)


def with_method(type_: str, **values: Any) -> Call:
    return creating(method={"type": type_, type_: {"hyperparameters": values}})


HYPER = "hyperparameters"
SUPERVISED, DPO = f"method.supervised.{HYPER}", f"method.dpo.{HYPER}"

CREATION: list[tuple[Call, str | None, str | None, str]] = [
    (creating(training_file="X"), None, "training_file", "invalid training_file: X"),
    (of_another_purpose, None, "training_file", "purpose 'fine-tune'"),
    (creating(validation_file="7"), None, "validation_file", "invalid validation_file: 7"),
    (creating(model="X"), "model_not_available", None, "Model X is not available for fine-tuning or does not exist."),
    (creating(model=None), "invalid_type", "model", "expected a string, but got null"),
    (creating(unknown=1), "unknown_parameter", "unknown", "Unknown parameter: 'unknown'."),
    (creating(suffix=""), "string_below_min_length", "suffix", "minimum length 1"),
    (creating(suffix="x" * 65), "string_above_max_length", "suffix", "maximum length 64"),
    (creating(seed=-1), "integer_below_min_value", "seed", ">= 0"),
    (creating(seed=2**31), "integer_above_max_value", "seed", "<= 2147483647"),
    (creating(metadata={str(n): "" for n in range(17)}), "object_above_max_properties", "metadata", "at most 16"),
    (creating(metadata={"k" * 65: ""}), "string_above_max_length", "metadata." + "k" * 65, "maximum length 64"),
    (creating(metadata={"k": "v" * 513}), "string_above_max_length", "metadata.k", "maximum length 512"),
    (creating(integrations=[{}] * 6), "array_above_max_length", "integrations", "maximum length 5"),
    (
        creating(integrations=[{"type": "wandb", "wandb": {"project": "p", "tags": ["t"] * 51}}]),
        "array_above_max_length",
        "integrations[0].wandb.tags",
        "maximum length 50",
    ),
    (
        creating(integrations=[{"type": "wandb", "wandb": {"project": "p", "tags": ["t" * 65]}}]),
        "string_above_max_length",
        "integrations[0].wandb.tags[0]",
        "maximum length 64",
    ),
    (creating(method={"type": "x"}), "invalid_value", "method.type", "'supervised', "),
    (with_hyperparameters(n_epochs=0), "integer_below_min_value", f"{HYPER}.n_epochs", ">= 1"),
    (with_hyperparameters(n_epochs=51), "integer_above_max_value", f"{HYPER}.n_epochs", "<= 50"),
    (with_hyperparameters(batch_size=0), "integer_below_min_value", f"{HYPER}.batch_size", ">= 1"),
    (with_hyperparameters(batch_size=257), "integer_above_max_value", f"{HYPER}.batch_size", "<= 256"),
    (
        with_hyperparameters(learning_rate_multiplier=0),
        "decimal_below_min_value",
        f"{HYPER}.learning_rate_multiplier",
        "> 0",
    ),
    (with_hyperparameters(n_epochs="x"), "invalid_type", f"{HYPER}.n_epochs", "n_epochs"),
    (with_hyperparameters(beta=0.1), "unknown_parameter", f"{HYPER}.beta", "beta"),
    (with_method("supervised", n_epochs=51), "integer_above_max_value", f"{SUPERVISED}.n_epochs", "<= 50"),
    (with_method("supervised", batch_size=257), "integer_above_max_value", f"{SUPERVISED}.batch_size", "<= 256"),
    (with_method("supervised", beta=0.1), "unknown_parameter", f"{SUPERVISED}.beta", "beta"),
    (with_method("dpo", n_epochs=0), "integer_below_min_value", f"{DPO}.n_epochs", ">= 1"),
    (with_method("dpo", batch_size=257), "integer_above_max_value", f"{DPO}.batch_size", "<= 256"),
    (
        with_method("dpo", learning_rate_multiplier=0),
        "decimal_below_min_value",
        f"{DPO}.learning_rate_multiplier",
        "> 0",
    ),
    (with_method("dpo", beta=0), "decimal_below_min_value", f"{DPO}.beta", "> 0"),
    (with_method("dpo", beta=2.1), "decimal_above_max_value", f"{DPO}.beta", "<= 2"),
    (with_method("dpo", beta="x"), "invalid_type", f"{DPO}.beta", "beta"),
    (creating(method={"type": "reinforcement"}), "invalid_value", "method.type", "values are: 'supervised', "),
    (creating(method={}), "missing_required_parameter", "method.type", "'method.type'"),
    (
        creating(integrations=[{"type": "wandb", "wandb": {"project": "p", "entity": "somebody"}}]),
        "invalid_value",
        "integrations[0].wandb.entity",
        "does not send runs to the entity 'somebody'. It allows none: leave it out",
    ),
    (creating(integrations=[{"type": "x"}]), "invalid_value", "integrations[0].type", "'wandb'"),
    (
        creating(integrations=[{"type": "wandb", "wandb": {}}]),
        "missing_required_parameter",
        "integrations[0].wandb.project",
        "'integrations[0].wandb.project'",
    ),
    (creating(suffix="a b"), "invalid_value", "suffix", "suffix"),
    (creating(seed=1.5), "invalid_type", "seed", "integer"),
    (creating(metadata={"k": 1}), "invalid_type", "metadata.k", "string"),
    (creating(model="ft:tiny:luthier::nothing"), "model_not_available", None, "ft:tiny:luthier::nothing"),
    (creating(tuning={"type": "lora", "lora": {"r": 513}}), "integer_above_max_value", "tuning.lora.r", "<= 512"),
    (creating(tuning={"type": "nobodys"}), "invalid_value", "tuning.type", "'lora'"),
]
