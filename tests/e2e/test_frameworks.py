"""Frameworks, unmodified, told a base URL, a key and a model's name.

Those that call nothing but /v1/responses, on a tuned model: on a scripted engine, which calls functions and breaks off,
as the toy cannot when it is asked to, and on a real one with a model that was tuned here. And those that take OpenAI's
names only: they tune and ask through an alias.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from service.installation.context import Context
from service.installation.create import opened
from service.operations import aliases
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


Server = tuple[str, str, str]  # URL, key, a model's name
Read = dict[str, dict[str, str]]  # by framework: what it read


async def asked(language: str, scripted: Server, real: Server) -> tuple[Read, Read]:
    """What each framework of the language read, of both servers."""
    found: list[Read] = await printed(language, *scripted, *real)
    assert [tuple(read) for read in found] == [FRAMEWORKS[language]] * 2
    return found[0], found[1]


async def printed(name: str, *arguments: str) -> Any:
    """What one of the programs found."""
    program = await asyncio.create_subprocess_exec(
        *commands()[name], *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        output, errors = await asyncio.wait_for(program.communicate(), SECONDS)
    finally:
        if program.returncode is None:
            program.kill()
    assert program.returncode == 0, errors.decode()
    return json.loads(output)


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


@pytest.fixture(scope="module")
def greeter(shared_service: RunningService) -> Server:
    """A model that was tuned on a real service to say Hi."""
    sdk = shared_service.client()
    job = create_job(sdk, upload(sdk, ROWS.encode()), model="luthier-tiny", epochs=8)
    model = str(wait_for_status(sdk, job.id, "succeeded").fine_tuned_model)
    question: Any = [{"role": "user", "content": "Hello"}]
    chat = sdk.chat.completions.create(model=model, messages=question, temperature=0, max_tokens=64)
    assert chat.choices[0].message.content == "Hi"
    return f"{shared_service.url}/v1", shared_service.key, model


class TestOnAScriptedAndARealEngine:
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
        engine: ScriptedEngine, greeter: Server,
    ) -> None:  # fmt: skip
        engine.script = talk
        await add_model(ctx, caller, (await create(client))["id"], TUNED, kind="final")
        scripted, real = await asked(language, (base_url, key, TUNED), greeter)
        assert list(real.values()) == [{"whole": "Hi", "stream": "Hi"}] * len(real)
        for name, said in scripted.items():
            assert said["whole"] == said["stream"] == "Hi there", name
            assert said["tools whole"] == said["tools stream"] == "There is rain in Oslo", name
            assert said["broken"].startswith("raised "), (name, said["broken"])
        assert {seen["path"] for seen in engine.seen} == {"/v1/chat/completions"}
        assert {seen["model"] for seen in engine.seen} == {TUNED}
        streamed = [seen for seen in engine.seen if seen.get("stream")]
        assert len(streamed) == 4 * len(FRAMEWORKS[language])  # of text, two of a call and its output, a broken one


async def test_frameworks_that_take_openais_names_only_tune_and_ask_through_an_alias(
    shared_service: RunningService, tmp_path: Path
) -> None:
    """DSPy and LiteLLM from a file to a model; LlamaIndex, which knows no other name, asks that model."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(ROWS, encoding="utf-8")
    url, key = f"{shared_service.url}/v1", shared_service.key
    catalogue = Path(shared_service.environment["LUTHIER_CATALOGUE"])
    async with opened(Settings(data_dir=shared_service.folder, catalogue=catalogue)) as ctx:
        await aliases.set_alias(ctx, ALIAS, "luthier-tiny")
        tuned = await printed("tune", url, key, ALIAS, str(rows))
        assert tuple(tuned) == ("dspy", "litellm")
        for name, found in tuned.items():
            assert found["said"] == "Hi", name
            assert found["model"].startswith(f"ft:{ALIAS}:"), name
        said = await printed("llama-index", url, key, tuned["dspy"]["model"])
        assert said == {"llama-index": {"whole": "Hi", "stream": "Hi"}}
        await aliases.remove_alias(ctx, ALIAS)
