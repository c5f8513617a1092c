"""Errors by HTTP status, and of what is not there: call, class, type, code, param, a part of the message."""

from dataclasses import replace
from typing import Any

import openai

from service.api.web.auth import KnownKeys
from service.gateway.limits import PerMinute, create_limits
from tests.contract.error_table import Api, Call
from tests.given.scripted_engine import answers

TOO_LONG = (
    b'{"error":{"message":"This model\'s maximum context length is 256 tokens. However, you requested 300 tokens.",'
    b'"type":"BadRequestError","param":"prompt","code":400}}'
)
BAD_REQUEST = openai.BadRequestError
FINE_TUNE_NOT_FOUND = ("fine_tune_not_found", "fine_tuning_job_id", "Could not find fine tune: nothing")


async def beyond_the_context(api: Api) -> None:
    api.engine.script = answers(TOO_LONG, 400)
    await api.sdk.completions.create(model="tiny", prompt="x " * 300)


async def without_an_engine(api: Api) -> None:
    api.engine.script = answers(b"", 500)
    await api.sdk.completions.create(model="tiny", prompt="x")


def limited(api: Api, per_minute: PerMinute) -> None:
    api.app.state.context = replace(api.ctx, limits=create_limits(per_minute, None))


async def once_too_often(api: Api) -> None:
    limited(api, PerMinute(requests=1))
    for _ in range(2):
        await api.sdk.completions.create(model="tiny", prompt="x")


async def too_many_tokens(api: Api) -> None:
    limited(api, PerMinute(tokens=10))
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


def strictly(call: Call) -> Call:
    """On an installation that ignores no header."""

    async def called(api: Api) -> None:
        settings = api.ctx.settings.model_copy(update={"strict_organization": True})
        api.app.state.known_keys = KnownKeys(replace(api.ctx, settings=settings))
        await call(api)

    return called


async def listing(api: Api) -> None:
    await api.sdk.models.list()


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
        BAD_REQUEST, "invalid_request_error", None, "purpose",
        "'x' is not one of ['fine-tune', 'assistants', 'batch', 'user_data', 'vision', 'evals'] - 'purpose'",
    ),
    (
        with_options(listing, api_key="sk-luthier-wrong-key-1234"),
        openai.AuthenticationError, "invalid_request_error", "invalid_api_key", None,
        "Incorrect API key provided: sk-luthi****1234.",
    ),
    (
        strictly(with_options(listing, organization="org-x")),
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
            lambda api: api.sdk.fine_tuning.jobs.pause("nothing"),
            lambda api: api.sdk.fine_tuning.jobs.resume("nothing"),
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
    *[
        (call, openai.NotFoundError, "invalid_request_error", None, "upload_id", "No such Upload object: nothing")
        for call in (
            lambda api: api.sdk.uploads.cancel("nothing"),
            lambda api: api.sdk.uploads.complete("nothing", part_ids=["part_1"]),
            lambda api: api.sdk.uploads.parts.create("nothing", data=b"x"),
        )
    ],
    (
        lambda api: api.sdk.fine_tuning.checkpoints.permissions.delete(
            "cp_1", fine_tuned_model_checkpoint="ft:tiny:luthier::nothing"
        ),
        openai.NotFoundError, "invalid_request_error", None, "permission_id",
        "No such permission of the checkpoint ft:tiny:luthier::nothing: cp_1",
    ),
    (
        lambda api: api.sdk.chat.completions.create(
            model="ft:tiny:luthier::nothing:ckpt-step-1", messages=[{"role": "user", "content": "x"}]
        ),
        openai.NotFoundError, "invalid_request_error", "model_not_found", "model",
        "does not exist or you do not have access to it.",
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
