"""Recipes: an objective (which loss) and a tuning (which parameters move), with their settings and "auto" rules.

`method` and `hyperparameters` are OpenAI's (openai-api reference, 1.3.2); `tuning` is our extension field.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from service.domain.base import Base
from service.domain.errors import InvalidRequest

OBJECTIVES = ("supervised", "dpo")
AUTO_BETA = 0.1  # of Rafailov et al., 2023, appendix B

Auto = Literal["auto"]


def _json_integer(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# JSON has one kind of number: 3.0 is an integer there, `"3"` and `true` are none.
Integer = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = BeforeValidator(_json_integer)


class Hyperparameters(BaseModel):
    """Of every objective; "auto" is replaced once the files are validated."""

    model_config = ConfigDict(extra="forbid")

    batch_size: Annotated[Auto | Annotated[Integer, Field(ge=1, le=256)], Whole] = "auto"
    learning_rate_multiplier: Auto | Annotated[Number, Field(gt=0)] = "auto"
    n_epochs: Annotated[Auto | Annotated[Integer, Field(ge=1, le=50)], Whole] = "auto"


class DpoHyperparameters(Hyperparameters):
    """Of the objective dpo. `beta` is the price of leaving the reference: the smaller, the further the policy goes."""

    beta: Auto | Annotated[Number, Field(gt=0, le=2)] = "auto"


HYPERPARAMETERS: dict[str, type[Hyperparameters]] = {"supervised": Hyperparameters, "dpo": DpoHyperparameters}


def objective_settings(hyperparameters: dict[str, Any]) -> dict[str, float]:
    """What of the resolved hyperparameters is the objective's own, not the loop's."""
    return {name: value for name, value in hyperparameters.items() if name not in Hyperparameters.model_fields}


class LoraSettings(BaseModel):
    """Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685): W + (alpha / r) B A on the base's linear layers."""

    model_config = ConfigDict(extra="forbid")

    r: Annotated[Integer, Whole] = Field(16, ge=1, le=512)
    alpha: Number = Field(32, gt=0)
    dropout: Number = Field(0.0, ge=0, lt=1)
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1, max_length=32)] = "all-linear"


class PromptSettings(BaseModel):
    """Prompt tuning (Lester et al., 2021, arXiv 2104.08691): learned vectors before the input."""

    model_config = ConfigDict(extra="forbid")

    num_virtual_tokens: Annotated[Integer, Whole] = Field(20, ge=1, le=256)


class Tuning(BaseModel):
    """The job's extension field `tuning`: which parameters move. The settings of the named type only."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["lora", "prompt"] = "lora"
    lora: LoraSettings | None = None
    prompt: PromptSettings | None = None

    def resolved(self) -> dict[str, Any]:
        """`{"type": t, t: settings}` with defaults filled in. Raises InvalidRequest for another type's settings."""
        defaults: dict[str, BaseModel] = {"lora": LoraSettings(), "prompt": PromptSettings()}
        for other in defaults:
            if other != self.type and getattr(self, other) is not None:
                raise InvalidRequest(
                    f"'tuning.{other}' was given, but the tuning's type is '{self.type}'.", param=f"tuning.{other}"
                )
        settings = getattr(self, self.type) or defaults[self.type]
        return {"type": self.type, self.type: settings.model_dump()}


def continued_tuning(parent: dict[str, Any], asked: Tuning | None) -> dict[str, Any]:
    """The tuning of a job that continues a model: the parent's, for its weights must fit; only dropout may be another.

    What `asked` leaves out is the parent's. Raises InvalidRequest, which names the setting that differs.
    """
    kind = parent["type"]
    if asked is None:
        return parent
    if asked.type != kind:
        raise _other_shape("tuning.type", asked.type, kind)
    asked.resolved()  # refuses the settings of another type
    given = asked.model_dump(exclude_unset=True).get(kind) or {}
    for name, value in given.items():
        before = parent[kind][name]
        if name != "dropout" and _unordered(value) != _unordered(before):
            raise _other_shape(f"tuning.{kind}.{name}", value, before)
    return {"type": kind, kind: {**parent[kind], **given}}


def _unordered(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value


def _other_shape(param: str, asked: object, parent: object) -> InvalidRequest:
    return InvalidRequest(
        f"A job that continues a model has that model's tuning: '{param}' is {parent!r} there, not {asked!r}. "
        "Leave it out, or start from the base.",
        param=param,
    )


TUNINGS: dict[str, str] = {
    "lora": "Low-rank adapters on the linear layers; served by every engine.",
    "prompt": "Soft prompts before the input; served by the embedded engine only.",
}


def check_servable(base: Base, tuning: dict[str, Any]) -> None:
    """Raises InvalidRequest where the engines of `base` could not serve what the job would make."""
    kind = tuning["type"]
    if kind not in base.serving.tunings or kind not in base.learning_rate:
        offered = ", ".join(sorted(base.serving.tunings & base.learning_rate.keys()))
        raise InvalidRequest(
            f"The engines of '{base.id}' cannot serve the tuning '{kind}'; use one of: {offered}.", param="tuning.type"
        )
    if kind == "lora" and tuning["lora"]["r"] > base.serving.max_lora_rank:
        raise InvalidRequest(
            f"The engines of '{base.id}' serve LoRA up to rank {base.serving.max_lora_rank}; "
            f"the job asks for {tuning['lora']['r']}.",
            param="tuning.lora.r",
        )


def auto_epochs(num_examples: int) -> int:
    """OpenAI's rule (cookbook, data preparation for chat fine-tuning): aim at 100 to 25,000 example passes."""
    if 3 * num_examples < 100:
        return max(1, min(25, 100 // num_examples))
    if 3 * num_examples > 25_000:
        return max(1, 25_000 // num_examples)
    return 3


def auto_batch_size(num_examples: int) -> int:
    """OpenAI's rule (legacy fine-tuning guide): about 0.2 % of the examples, at most 256."""
    return max(1, min(256, round(0.002 * num_examples)))


def resolve_auto(hyperparameters: dict[str, Any], num_examples: int) -> dict[str, Any]:
    """Concrete numbers for every "auto"; an example of dpo is a pair.

    The multiplier's is 1: the catalogue's learning rate as it stands.
    """
    rules = {
        "n_epochs": auto_epochs(num_examples),
        "batch_size": auto_batch_size(num_examples),
        "learning_rate_multiplier": 1.0,
        "beta": AUTO_BETA,
    }
    resolved = {name: rules[name] if value == "auto" else value for name, value in hyperparameters.items()}
    resolved["batch_size"] = min(resolved["batch_size"], num_examples)
    return resolved
