"""The rows of the error tables of OpenAI's API: what a user does, and the error that comes of it.

Of the openai-api reference: errors of creating a job (1.3.5, with the limits of 1.3.2), of a job's files (1.3.5), of
what is not there (1.1 to 1.6) and by HTTP status (1.9). What this service never answers is not here: 403
`training_not_available` (it trains), 409 (the SDKs would try again), 422, `insufficient_quota`, moderation.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import openai
from fastapi import FastAPI

from service.gateway.limits import RateLimits
from service.operations.context import Context
from tests.unit.scripted_engine import ScriptedEngine, answers

TOO_LONG = (
    b'{"error":{"message":"This model\'s maximum context length is 256 tokens. However, you requested 300 tokens.",'
    b'"type":"BadRequestError","param":"prompt","code":400}}'
)


@dataclass
class Api:
    """The service as one user has it: an SDK, a file to train on, and the engine behind."""

    sdk: openai.AsyncOpenAI
    app: FastAPI
    ctx: Context
    engine: ScriptedEngine
    file: str

    async def create(self, **fields: Any) -> Any:
        """A job by the SDK, without its own idea of what may be sent."""
        body = {"model": "tiny", "training_file": self.file, **fields}
        return await self.sdk.fine_tuning.jobs.create(
            model=body.pop("model"), training_file=body.pop("training_file"), extra_body=body
        )

    async def upload(self, *lines: bytes, purpose: Any = "fine-tune") -> str:
        return (await self.sdk.files.create(file=b"\n".join(lines), purpose=purpose)).id


Call = Callable[[Api], Awaitable[Any]]


def row(number: int) -> bytes:
    said = [{"role": "user", "content": f"{number} + 1?"}, {"role": "assistant", "content": f"{number + 1}"}]
    return json.dumps({"messages": said}).encode()


ROWS = [row(number) for number in range(12)]


def creating(**fields: Any) -> Call:
    return lambda api: api.create(**fields)


def with_hyperparameters(**values: Any) -> Call:
    return creating(hyperparameters=values)


async def cancelled_twice(api: Api) -> None:
    job = await api.create()
    await api.sdk.fine_tuning.jobs.cancel(job.id)
    await api.sdk.fine_tuning.jobs.cancel(job.id)


async def of_another_purpose(api: Api) -> None:
    await api.create(training_file=await api.upload(*ROWS, purpose="batch"))


async def beyond_the_context(api: Api) -> None:
    api.engine.script = answers(TOO_LONG, 400)
    await api.sdk.completions.create(model="tiny", prompt="x " * 300)


async def without_an_engine(api: Api) -> None:
    api.engine.script = answers(b"", 500)
    await api.sdk.completions.create(model="tiny", prompt="x")


async def once_too_often(api: Api) -> None:
    api.app.state.rate_limits = RateLimits(api.ctx.settings.model_copy(update={"requests_per_minute": 1}))
    for _ in range(2):
        await api.sdk.completions.create(model="tiny", prompt="x")


async def too_many_tokens(api: Api) -> None:
    api.app.state.rate_limits = RateLimits(api.ctx.settings.model_copy(update={"tokens_per_minute": 10}))
    await api.sdk.completions.create(model="tiny", prompt="x" * 400)


async def broken(api: Api) -> None:
    async def fails() -> None:
        raise RuntimeError

    api.app.add_api_route("/v1/broken", fails)
    await api.sdk.get("/broken", cast_to=object)


def with_options(call: Call, **options: Any) -> Call:
    async def called(api: Api) -> None:
        api.sdk = api.sdk.with_options(**options)
        await call(api)

    return called


async def listing(api: Api) -> None:
    await api.sdk.models.list()


BAD_REQUEST = openai.BadRequestError
FINE_TUNE_NOT_FOUND = ("fine_tune_not_found", "fine_tuning_job_id", "Could not find fine tune: nothing")
HYPER = "hyperparameters"

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
    (creating(method={"type": "x"}), "invalid_value", "method.type", "'supervised', 'dpo' and 'reinforcement'"),
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
    (cancelled_twice, None, None, "its status is 'cancelled'"),
]


# class, type, code, param, message
BY_STATUS: list[tuple[Call, type[openai.APIStatusError], str, str | None, str | None, str]] = [
    (
        lambda api: api.sdk.post("/fine_tuning/jobs", body={"model": "tiny"}, cast_to=object),
        BAD_REQUEST, "invalid_request_error", "missing_required_parameter", "training_file", "'training_file'",
    ),
    (
        lambda api: api.sdk.completions.create(model="tiny", prompt="x", temperature=3),
        BAD_REQUEST, "invalid_request_error", "decimal_above_max_value", "temperature", "<= 2",
    ),
    (beyond_the_context, BAD_REQUEST, "invalid_request_error", "context_length_exceeded", "prompt", "is 256 tokens"),
    (
        lambda api: api.sdk.files.create(file=b"{}", purpose="x"),  # type: ignore[arg-type]
        BAD_REQUEST, "invalid_request_error", None, None,
        "'x' is not one of ['fine-tune', 'assistants', 'batch', 'user_data', 'vision', 'evals'] - 'purpose'",
    ),
    (
        with_options(listing, api_key="sk-luthier-wrong-key-1234"),
        openai.AuthenticationError, "invalid_request_error", "invalid_api_key", None,
        "Incorrect API key provided: sk-luthi****1234.",
    ),
    (
        with_options(listing, organization="org-x"),
        openai.AuthenticationError, "invalid_request_error", "mismatched_organization", None, "'org-x'",
    ),
    (
        lambda api: api.sdk.models.delete("tiny"),
        openai.PermissionDeniedError, "invalid_request_error", None, "model", "'tiny' is a base model",
    ),
    (
        lambda api: api.sdk.files.retrieve("nothing"),
        openai.NotFoundError, "invalid_request_error", None, "id", "No such File object: nothing",
    ),
    (
        lambda api: api.sdk.files.content("nothing"),
        openai.NotFoundError, "invalid_request_error", None, "id", "No such File object: nothing",
    ),
    (
        lambda api: api.sdk.files.delete("nothing"),
        openai.NotFoundError, "invalid_request_error", None, "id", "No such File object: nothing",
    ),
    *[
        (call, openai.NotFoundError, "invalid_request_error", *FINE_TUNE_NOT_FOUND)
        for call in (
            lambda api: api.sdk.fine_tuning.jobs.retrieve("nothing"),
            lambda api: api.sdk.fine_tuning.jobs.cancel("nothing"),
            lambda api: api.sdk.fine_tuning.jobs.list_events("nothing"),
            lambda api: api.sdk.fine_tuning.jobs.checkpoints.list("nothing"),
        )
    ],
    (
        lambda api: api.sdk.models.retrieve("nothing"),
        openai.NotFoundError, "invalid_request_error", "model_not_found", "model",
        "The model 'nothing' does not exist",
    ),
    (
        lambda api: api.sdk.models.delete("ft:tiny:luthier::nothing"),
        openai.NotFoundError, "invalid_request_error", "model_not_found", "model",
        "The model 'ft:tiny:luthier::nothing' does not exist",
    ),
    (
        lambda api: api.sdk.completions.create(model="nothing", prompt="x"),
        openai.NotFoundError, "invalid_request_error", "model_not_found", "model",
        "does not exist or you do not have access to it.",
    ),
    (
        lambda api: api.sdk.chat.completions.create(model="nothing", messages=[{"role": "user", "content": "x"}]),
        openai.NotFoundError, "invalid_request_error", "model_not_found", "model",
        "does not exist or you do not have access to it.",
    ),
    (
        lambda api: api.sdk.uploads.cancel("nothing"),
        openai.NotFoundError, "invalid_request_error", None, "upload_id", "nothing",
    ),
    (
        lambda api: api.sdk.post("/x", cast_to=object),
        openai.NotFoundError, "invalid_request_error", None, None, "Invalid URL (POST /v1/x)",
    ),
    (
        lambda api: api.upload(b"x" * 50_001),
        openai.APIStatusError, "invalid_request_error", "file_too_large", "file", "50,000",
    ),
    (
        once_too_often, openai.RateLimitError, "requests", "rate_limit_exceeded", None,
        "Limit 1, Used 1, Requested 1. Please try again in ",
    ),
    (
        too_many_tokens, openai.RateLimitError, "tokens", "rate_limit_exceeded", None, "Limit 10, Requested 100.",
    ),
    (broken, openai.InternalServerError, "server_error", None, None, "The server had an error"),
    (without_an_engine, openai.InternalServerError, "server_error", None, None, "Please try again."),
]  # fmt: skip


def chat(*messages: Any) -> bytes:
    return json.dumps({"messages": list(messages)}).encode()


USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
PREFERENCE = json.dumps({"input": {"messages": [USER]}, "preferred_output": [ASSISTANT]}).encode()
INVALID = "The job failed due to an invalid training file. Invalid file format. Example"

FILES: list[tuple[list[bytes], str, list[str]]] = [
    (ROWS[:7], "invalid_n_examples", ["Training file has 7 example(s), but must have at least 10 examples"]),
    (
        [*ROWS[:10], chat(USER, {"content": "b"})],
        "invalid_training_file",
        [INVALID, "Example 11, message 2", "Discriminator 'role' is missing in value"],
    ),
    ([*ROWS, b"{"], "invalid_training_file", [INVALID, "Example 13", "is not JSON"]),
    ([*ROWS, PREFERENCE], "invalid_training_file", [INVALID, "Example 13"]),
    (
        [PREFERENCE] * 12,
        "invalid_training_file",
        ["not using 'dpo' as the training method (provided method=supervised)"],
    ),
    (
        [b'{"text": "a"}', *ROWS],
        "invalid_training_file",
        [INVALID, "Example 1", "Unexpected file format, expected either prompt/completion pairs or chat messages."],
    ),
    (
        [chat(USER | {"weight": 1}, ASSISTANT), *ROWS],
        "invalid_file_format",
        ["The job failed due to a file format error in the training file.", "Example 1", 'contains an extra "weight"'],
    ),
]
