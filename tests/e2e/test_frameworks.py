"""Frameworks, unmodified, told a base URL, a key and a model's name.

Those that call nothing but /v1/responses, on a tuned model: once on a real engine with a model that was tuned here;
once on a scripted one, which calls functions and breaks off, as the toy cannot when it is asked to. And those that take
OpenAI's names only: they tune and ask through an alias.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from service.installation.context import Context
from service.operations.keys import Caller
from service.settings.settings import Settings
from tests.given.chat_chunks import DONE, call_chunk, chunk, text_stream, usage_chunk, whole
from tests.given.jobs_by_http import create
from tests.given.journey import create_job, upload
from tests.given.running_service import RunningService, wait_for_status
from tests.given.scripted_engine import Script, ScriptedEngine, answers, dies, streams
from tests.given.stored_models import add_model
from tests.servers.frameworks import commands

pytestmark = pytest.mark.slow

FRAMEWORKS = {"python": ("pydantic-ai", "openai-agents", "litellm", "langchain"), "node": ("ai-sdk",)}
SECONDS = 240
TUNED = "ft:luthier-tiny:luthier:x:AAAAAAAA"
CATALOGUE = """
[[base]]
id = "luthier-tiny"
source = "nowhere"
context_tokens = 64
learning_rate = { lora = 1e-3 }
serving = { tunings = ["lora"], engine = "vllm", tool_call_parser = "hermes" }
"""


ALIAS = "gpt-4o-mini-2024-07-18"
ROW = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}
ROWS = "\n".join([json.dumps(ROW)] * 24)


async def asked(language: str, url: str, key: str, model: str, *options: str) -> dict[str, dict[str, str]]:
    """What each framework of the language read, by its name."""
    found = await printed(language, url, key, model, *options)
    assert tuple(found) == FRAMEWORKS[language]
    return found


async def printed(name: str, *arguments: str) -> dict[str, dict[str, str]]:
    """What one of the programs found, by framework."""
    program = await asyncio.create_subprocess_exec(
        *commands()[name], *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        output, errors = await asyncio.wait_for(program.communicate(), SECONDS)
    finally:
        if program.returncode is None:
            program.kill()
    assert program.returncode == 0, errors.decode()
    found: dict[str, dict[str, str]] = json.loads(output)
    return found


async def talk(request: web.Request) -> web.StreamResponse:
    """Calls `weather` where it is offered, then says what it returned; breaks off when it is asked to."""
    return await _script(await request.json())(request)


def _script(body: dict[str, Any]) -> Script:
    last = body["messages"][-1]
    if "Break off" in str(last["content"]):
        return streams(chunk({"content": "Half"}), then=dies)
    if "tools" in body and last["role"] != "tool":
        function = {"name": "weather", "arguments": '{"city": "Oslo"}'}
        call = {"id": "call_1", "type": "function", "function": function}
        called = [call_chunk(0, "", "weather", "call_1"), call_chunk(0, '{"city": '), call_chunk(0, '"Oslo"}')]
        ended = [chunk({}, "tool_calls"), usage_chunk(), DONE]
        made = whole({"content": None, "tool_calls": [call]}, "tool_calls")
        return streams(*called, *ended) if body.get("stream") else answers(made)
    said = ["There is ", str(last["content"])] if last["role"] == "tool" else ["Hi ", "there"]
    return streams(*text_stream(*said)) if body.get("stream") else answers(whole({"content": "".join(said)}))


class TestOnAScriptedEngine:
    @pytest.fixture
    def database_url(self) -> str:
        """The embedded database alone."""
        return ""

    @pytest.fixture
    def settings(self, tmp_path: Path, engine: ScriptedEngine) -> Settings:
        catalogue = tmp_path / "bases.toml"
        catalogue.write_text(CATALOGUE)
        return Settings(data_dir=tmp_path / "data", engine_urls=engine.url, catalogue=catalogue)

    @pytest.mark.parametrize("language", FRAMEWORKS)
    async def test_a_framework_talks_calls_functions_and_sees_a_broken_stream(
        self, language: str, base_url: str, key: str, ctx: Context, caller: Caller, client: httpx.AsyncClient,
        engine: ScriptedEngine,
    ) -> None:  # fmt: skip
        engine.script = talk
        await add_model(ctx, caller, (await create(client))["id"], TUNED, kind="final")
        for name, said in (await asked(language, base_url, key, TUNED, "--tools")).items():
            assert said["whole"] == said["stream"] == "Hi there", name
            assert said["tools whole"] == said["tools stream"] == "There is rain in Oslo", name
            assert said["broken"].startswith("raised "), (name, said["broken"])
        assert {seen["path"] for seen in engine.seen} == {"/v1/chat/completions"}
        assert {seen["model"] for seen in engine.seen} == {TUNED}
        streamed = [seen for seen in engine.seen if seen.get("stream")]
        assert len(streamed) == 4 * len(FRAMEWORKS[language])  # of text, two of a call and its output, a broken one


async def test_every_framework_reads_a_tuned_model_on_a_real_engine(shared_service: RunningService) -> None:
    sdk = shared_service.client()
    file = upload(sdk, ROWS.encode())
    job = await asyncio.to_thread(
        lambda: wait_for_status(sdk, create_job(sdk, file, model="luthier-tiny", epochs=8).id, "succeeded")
    )
    model = str(job.fine_tuned_model)
    question: Any = [{"role": "user", "content": "Hello"}]
    chat = sdk.chat.completions.create(model=model, messages=question, temperature=0, max_tokens=64)
    assert chat.choices[0].message.content == "Hi"
    for language in FRAMEWORKS:
        for name, said in (await asked(language, f"{shared_service.url}/v1", shared_service.key, model)).items():
            assert said == {"whole": "Hi", "stream": "Hi"}, name


async def test_frameworks_that_take_openais_names_only_tune_and_ask_through_an_alias(
    shared_service: RunningService, tmp_path: Path
) -> None:
    """DSPy and LiteLLM from a file to a model; LlamaIndex, which knows no other name, asks that model."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(ROWS, encoding="utf-8")
    url, key = f"{shared_service.url}/v1", shared_service.key
    await asyncio.to_thread(shared_service.run, "bases", "alias", ALIAS, "luthier-tiny")
    try:
        tuned = await printed("tune", url, key, ALIAS, str(rows))
        assert tuple(tuned) == ("dspy", "litellm")
        for name, found in tuned.items():
            assert found["said"] == "Hi", name
            assert found["model"].startswith(f"ft:{ALIAS}:"), name
        said = await printed("llama-index", url, key, tuned["dspy"]["model"])
        assert said == {"llama-index": {"whole": "Hi", "stream": "Hi"}}
    finally:
        await asyncio.to_thread(shared_service.run, "bases", "unalias", ALIAS)
