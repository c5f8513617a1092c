"""What a hostile JSON body may cost: bounded before it is parsed, whatever its shape."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from service.api.web.bodies import BodyLimits, check_structure
from service.domain.errors import InvalidRequest
from service.settings.settings import Settings
from tests.given.scripted_engine import ScriptedEngine

MIB = 1024 * 1024
LOOP_SECONDS = 0.2
SLACK = 2.5  # the machine may be slower than the one that the limits were chosen on
CATALOGUE = """
[[base]]
id = "tiny"
source = "nowhere"
context_tokens = 64
learning_rate = { lora = 1e-3 }
serving = { tunings = ["lora"] }
"""


def members(count: int, value: str = "1") -> str:
    return ",".join(f'"k{number}":{value}' for number in range(count))


CHAT = '{"model":"tiny","messages":[{"role":"user","content":"a"}],'
TEXT = '{"model":"tiny","prompt":'
SHAPES: dict[str, Callable[[], str]] = {
    "unknown keys": lambda: CHAT + members(300_000) + "}",
    "as many unknown keys as may pass": lambda: CHAT + members(19_000) + "}",
    "keys of metadata": lambda: CHAT + '"metadata":{' + members(19_000, '"x"') + "}}",
    "keys of logit_bias": lambda: CHAT + '"logit_bias":{' + members(19_000, '"x"') + "}}",
    "unknown keys in a message": lambda: '{"model":"tiny","messages":[{' + members(19_000) + "}]}",
    "messages that are none": lambda: '{"model":"tiny","messages":[' + ",".join(["1"] * 500_000) + "]}",
    "empty messages": lambda: '{"model":"tiny","messages":[' + ",".join(["{}"] * 250_000) + "]}",
    "content parts that are none": lambda: CHAT[:-3].replace('"a"', "[" + ",".join(["0"] * 500_000) + "]") + "]}",
    "annotations": lambda: CHAT.replace('"a"', '"a","annotations":[' + ",".join(["{}"] * 250_000) + "]")[:-1] + "}",
    "tokens": lambda: TEXT + "[" + ",".join(["12345"] * 520_000) + "]}",
    "tokens that are none": lambda: TEXT + "[" + ",".join(["true"] * 520_000) + "]}",
    "prompts of a token": lambda: TEXT + "[" + ",".join(["[1]"] * 250_000) + "]}",
    "prompts that are empty": lambda: TEXT + "[" + ",".join(['""'] * 520_000) + "]}",
    "more values than may pass": lambda: TEXT + "[" + ",".join(["1"] * 8_000_000) + "]}",
    "more strings than may pass": lambda: TEXT + "[" + ",".join(['""'] * 5_000_000) + "]}",
    "a long text": lambda: TEXT + '"' + "a" * (15 * MIB) + '"}',
    "a long text of commas": lambda: TEXT + '"' + "a,{[:" * (3 * MIB) + '"}',
    "escapes": lambda: TEXT + '"' + "\\n" * (7 * MIB) + '"}',
    "escaped quotes": lambda: TEXT + '"' + '\\"' * (7 * MIB) + '"}',
    "escaped pairs": lambda: TEXT + '"' + "\\ud83d\\ude00" * MIB + '"}',
    "quotes": lambda: '"' * (15 * MIB),
    "brackets": lambda: "[" * (15 * MIB),
    "brackets that close": lambda: TEXT + "[" * 250_000 + "]" * 250_000 + "}",
    "blanks": lambda: TEXT + " " * (15 * MIB) + '"a"}',
    "an integer of many digits": lambda: CHAT + '"n":' + "1" * (15 * MIB) + "}",
    "a fraction of many digits": lambda: CHAT + '"temperature":3.' + "1" * (15 * MIB) + "}",
    "a long stop": lambda: CHAT + '"stop":"' + "s" * (15 * MIB) + '"}',
    "a long name of a model": lambda: '{"model":"' + "m" * (15 * MIB) + '","prompt":"a"}',
    "a schema": lambda: CHAT + '"response_format":{"type":"json_schema","json_schema":{' + members(19_000) + "}}}",
}  # fmt: skip


@pytest.fixture
def database_url() -> str:
    """The embedded database alone: nothing here reaches it but the key."""
    return ""


@pytest.fixture
def settings(tmp_path: Path, engine: ScriptedEngine) -> Settings:
    (tmp_path / "bases.toml").write_text(CATALOGUE)
    return Settings(data_dir=tmp_path / "data", engine_urls=engine.url, catalogue=tmp_path / "bases.toml")


class Gap:
    """The most that the event loop's thread computed between two of its ticks: not waiting, not other processes."""

    cpu_seconds = 0.0
    ticks = 0


@asynccontextmanager
async def watched_loop() -> AsyncIterator[Gap]:
    gap = Gap()

    async def tick() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            gap.cpu_seconds, gap.ticks, last = max(gap.cpu_seconds, now - last), gap.ticks + 1, now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    yield gap
    await asyncio.sleep(0)
    ticking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticking


async def test_no_body_holds_the_event_loop(client: httpx.AsyncClient) -> None:
    seconds = {}
    for shape, make in SHAPES.items():
        body = make().encode()
        path = "/completions" if b'"prompt"' in body[:64] or b'"prompt"' in body[-16:] else "/chat/completions"
        async with watched_loop() as gap:
            response = await client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in ((200,) if shape == "blanks" else (400, 404, 413)), (shape, response.text[:300])
        assert gap.ticks >= 1
        seconds[shape] = gap.cpu_seconds
    assert {shape: taken for shape, taken in seconds.items() if taken > LOOP_SECONDS * SLACK} == {}


async def test_routes_without_prompts_take_a_small_body(client: httpx.AsyncClient) -> None:
    body = ('{"model":"tiny","training_file":"file-x",' + members(1001) + "}").encode()
    response = await client.post("/fine_tuning/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, "more than 1,000 keys" in response.text) == (400, True)
    response = await client.post("/uploads", content=b" " * (MIB + 1), headers={"Content-Type": "application/json"})
    assert (response.status_code, "at most 1,048,576 bytes" in response.text) == (413, True)


@pytest.mark.parametrize("head", [b"X-Long: " + b"x" * MIB, b"X" * MIB, b"X-A: b\r\n" * 100_000])
async def test_the_head_of_a_part_is_bounded(client: httpx.AsyncClient, head: bytes) -> None:
    body = b"--b\r\n" + head
    response = await client.post("/files", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert (response.status_code, "The multipart form cannot be read: " in response.text) == (400, True)


LIMITS = BodyLimits(bytes=MIB, values=200, keys=100, containers=50, depth=3)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "' + "," * 500 + '"}',
        '{"a": "' + '\\",' * 500 + '"}',
        '{"a": "' + "\\\\" * 500 + '", "b": [1, 2]}',
        '{"a": "[[[[[[[[[[" }' + " " * 500,
        "[" + ",".join(["1"] * 200)[:-2] + "]",
        '[[["' + "x," * 200 + '"]]]',
    ],
)
def test_what_is_inside_of_strings_is_not_counted(text: str) -> None:
    check_structure(text.encode(), LIMITS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" + ",".join(["1"] * 202) + "]", "200 values"),
        ("[" + ",".join(['"a"'] * 500) + "]", "200 values"),
        ("{" + members(101) + "}", "100 keys"),
        ("[" + ",".join(["[]"] * 51) + "]", "50 arrays and objects"),
        ("[[[[" + "1," * 60 + "1]]]]", "3 levels"),
        ('[{"a":[{' + members(70) + "}]}]", "3 levels"),
    ],
)
def test_what_is_beyond_a_limit_is_named(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check_structure(text.encode(), LIMITS)
