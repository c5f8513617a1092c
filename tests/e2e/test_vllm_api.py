"""Our API in front of a real vLLM: what the official SDK gets, and unavailable storage is never "no such model"."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from service.installation.context import Context
from service.operations.keys import Caller
from service.settings.settings import Settings
from tests.given.jobs_by_http import create
from tests.given.stored_models import add_model
from tests.servers.vllm import Vllm

pytestmark = pytest.mark.slow

SCHEMA = {
    "type": "object",
    "properties": {"good": {"type": "boolean"}},
    "required": ["good"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "judge", "parameters": SCHEMA, "strict": True}}
NAMED: Any = {"type": "function", "function": {"name": "judge"}}
MESSAGES: Any = [{"role": "user", "content": "Good?"}]


@pytest.fixture
def settings(tmp_path: Path, vllm: Vllm) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        engine_urls=vllm.url,
        catalogue=vllm.catalogue,
        storage_url=f"file://{vllm.folder / 'objects'}",
    )


@pytest.fixture
def database_url(settings: Settings) -> str:
    """SQLite alone: what differs here is the engine."""
    return settings.database_url


@pytest.fixture
async def sdk(base_url: str, key: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as sdk:
        yield sdk


@pytest.fixture
async def job_id(client: httpx.AsyncClient, vllm: Vllm) -> str:
    return str((await create(client, model=vllm.base.id))["id"])


async def announced(ctx: Context, caller: Caller, vllm: Vllm, job_id: str, publication: str, seed: int) -> str:
    """A model that is public, as after a job."""
    name = await asyncio.to_thread(vllm.publish, publication, seed)
    return await add_model(ctx, caller, job_id, name, base=vllm.base.id, kind="final")


def no_space(vllm: Vllm) -> dict[str, int]:
    """A random base would fill JSON with white space until the end of its answer."""
    ids = vllm.loaded.tokenizer(" \n\r\t", add_special_tokens=False)["input_ids"]
    return {str(id): -100 for id in ids}


async def test_the_sdk_reads_vllms_answers(
    sdk: openai.AsyncOpenAI, ctx: Context, caller: Caller, vllm: Vllm, job_id: str
) -> None:
    name = await announced(ctx, caller, vllm, job_id, "sdkreads", 5)
    completion = await sdk.completions.create(model=name, prompt=[70, 71, 72], max_tokens=4, logprobs=2, echo=True)
    assert completion.model == name
    assert completion.usage is not None and (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (
        3,
        4,
    )
    assert completion.choices[0].logprobs is not None and len(completion.choices[0].logprobs.tokens or []) == 7
    answer = await sdk.chat.completions.create(
        model=name, messages=MESSAGES, max_tokens=4, logprobs=True, top_logprobs=20, n=2, seed=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1] and answer.model == name
    assert answer.choices[0].logprobs is not None and answer.choices[0].logprobs.content is not None
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 20
    biased = await sdk.completions.create(model=vllm.base.id, prompt="x", max_tokens=3, logit_bias={"70": 100})
    assert len(set(biased.choices[0].text)) == 1
    stream = await sdk.chat.completions.create(
        model=name, messages=MESSAGES, max_tokens=4, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 4
    assert {chunk.model for chunk in chunks} == {name}


async def test_an_answer_has_the_shape_that_was_asked_for(sdk: openai.AsyncOpenAI, vllm: Vllm) -> None:
    shape: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    answer = await sdk.chat.completions.create(
        model=vllm.base.id, messages=MESSAGES, max_tokens=60, response_format=shape, logit_bias=no_space(vllm)
    )
    assert json.loads(answer.choices[0].message.content or "").keys() == {"good"}


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
async def test_a_tool_that_must_be_called_is_called(sdk: openai.AsyncOpenAI, vllm: Vllm, choice: Any) -> None:
    answer = await sdk.chat.completions.create(
        model=vllm.base.id,
        messages=MESSAGES,
        max_tokens=120,
        tools=[TOOL],
        tool_choice=choice,
        logit_bias=no_space(vllm),
    )
    calls = answer.choices[0].message.tool_calls or []
    assert calls, answer
    assert calls[0].type == "function" and calls[0].function.name == "judge"
    assert json.loads(calls[0].function.arguments).keys() == {"good"}
    conversation = [
        *MESSAGES,
        answer.choices[0].message,
        {"role": "tool", "tool_call_id": calls[0].id, "content": "ok"},
    ]
    assert (
        await sdk.chat.completions.create(model=vllm.base.id, messages=conversation, max_tokens=2)
    ).usage is not None


async def test_a_tool_that_may_be_called_is_no_error(sdk: openai.AsyncOpenAI, vllm: Vllm) -> None:
    for choice in ("auto", "none"):
        answer = await sdk.chat.completions.create(
            model=vllm.base.id, messages=MESSAGES, max_tokens=4, tools=[TOOL], tool_choice=choice
        )
        assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": "x " * 300}, None, "context_length_exceeded"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens", None),
        ({"prompt": "x", "top_p": 0}, "top_p", None),
        ({"prompt": "x", "logit_bias": {"99999": 1}}, "logit_bias", None),
        ({"prompt": "x", "suffix": "y"}, "suffix", "unsupported_value"),
        ({"prompt": "x", "best_of": 3}, "best_of", "unsupported_value"),
        ({"prompt": "x", "n": 2, "temperature": 0}, "n", "unsupported_value"),
    ],
)
async def test_what_vllm_refuses_comes_out_as_our_envelope(
    sdk: openai.AsyncOpenAI, vllm: Vllm, fields: dict[str, Any], param: str | None, code: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.completions.create(model=vllm.base.id, **fields)
    assert (caught.value.param, caught.value.code) == (param, code)


async def test_storage_that_is_away_is_no_missing_model(
    sdk: openai.AsyncOpenAI, ctx: Context, caller: Caller, vllm: Vllm, job_id: str
) -> None:
    async def ask() -> int:
        try:
            await sdk.completions.create(model=name, prompt="x", max_tokens=1)
        except openai.APIStatusError as error:
            return error.status_code
        return 200

    name = await announced(ctx, caller, vllm, job_id, "awayaway", 6)
    objects, elsewhere = vllm.folder / "objects", vllm.folder / "elsewhere"
    objects.rename(elsewhere)
    try:
        assert await ask() == 503  # as if nothing were there
        objects.symlink_to(objects)
        assert await ask() == 503  # every access fails
        objects.unlink()
    finally:
        elsewhere.rename(objects)
    assert await ask() == 200
    with pytest.raises(openai.NotFoundError):
        await sdk.completions.create(model="ft:tiny:acme::nobody00", prompt="x")


async def test_jobs_that_vllm_could_not_serve_are_refused(sdk: openai.AsyncOpenAI, vllm: Vllm) -> None:
    for tuning, param in (
        ({"type": "prompt"}, "tuning.type"),
        ({"type": "lora", "lora": {"r": 17}}, "tuning.lora.r"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            await sdk.fine_tuning.jobs.create(model=vllm.base.id, training_file="file-x", extra_body={"tuning": tuning})
        assert caught.value.param == param
