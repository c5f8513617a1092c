"""What the SDK does on a bad day: which requests it sends again, which exception ends the others, how streams break."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import luthier
import pytest
from luthier import AsyncLuthier, Luthier, models, retries
from luthier.streams import Events

from tests.given.scripted_api import ScriptedApi, cuts, fails, hangs, scripted_api, sends, streams

MODEL = {"id": "luthier-tiny", "created": 1, "owned_by": "luthier", "kind": "causal", "task": "generate"}
FILE = {"id": "file-1", "purpose": "fine-tune", "filename": "a", "bytes": 3, "created_at": 1, "expires_at": None}
EVENT = {"id": "ftevent-1", "created_at": 1, "level": "info", "message": "a\u2028b", "type": "message", "data": {}}
LINE = f"id: ftevent-1\ndata: {json.dumps(EVENT, ensure_ascii=False)}\n\n".encode()
DONE = b"data: [DONE]\n\n"

Ask = Callable[..., Awaitable[Any]]  # asks the scripted API for a model


async def ask_sync(api: ScriptedApi, call: Callable[[Any], Any], **options: Any) -> Any:
    def ask() -> Any:
        with Luthier(url=api.url, api_key="key", **options) as sdk:
            return call(sdk)

    return await asyncio.to_thread(ask)


async def ask_async(api: ScriptedApi, call: Callable[[Any], Any], **options: Any) -> Any:
    async with AsyncLuthier(url=api.url, api_key="key", **options) as sdk:
        return await call(sdk)


both = pytest.mark.parametrize("ask", [ask_sync, ask_async], ids=["sync", "async"])


def retrieve(sdk: Any) -> Any:
    return sdk.models.retrieve("luthier-tiny")


@both
@pytest.mark.parametrize("bad", [cuts, *(fails(status) for status in (408, 409, 429, 500, 503))])
async def test_a_passing_failure_is_tried_again(ask: Ask, bad: Any) -> None:
    async with scripted_api(bad, bad, sends(MODEL)) as api:
        found = await ask(api, retrieve)
    assert found == models.ModelObject(**MODEL)
    assert len(api.seen) == 3


@both
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, luthier.BadRequestError),
        (401, luthier.AuthenticationError),
        (403, luthier.PermissionDeniedError),
        (404, luthier.NotFoundError),
        (413, luthier.APIStatusError),
        (422, luthier.UnprocessableEntityError),
    ],
)
async def test_what_is_wrong_is_raised_at_once(ask: Ask, status: int, kind: type[luthier.APIStatusError]) -> None:
    async with scripted_api(fails(status, "No.", x_request_id="req_1")) as api:
        with pytest.raises(kind, match=r"^No\.$") as raised:
            await ask(api, retrieve)
    error = raised.value
    assert (error.status_code, error.param, error.code, error.request_id) == (status, "model", "a_code", "req_1")
    assert type(error) is kind and len(api.seen) == 1


@both
@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (fails(409), luthier.ConflictError),
        (fails(429), luthier.RateLimitError),
        (fails(503), luthier.InternalServerError),
        (cuts, luthier.APIConnectionError),
    ],
)
async def test_what_stays_wrong_is_raised_after_two_retries(ask: Ask, bad: Any, kind: type[Exception]) -> None:
    async with scripted_api(bad) as api:
        with pytest.raises(kind):
            await ask(api, retrieve)
    assert len(api.seen) == 3


@both
async def test_the_service_has_the_last_word_on_retries(ask: Ask) -> None:
    async with scripted_api(fails(429, x_should_retry="false"), sends(MODEL)) as api:
        with pytest.raises(luthier.RateLimitError):
            await ask(api, retrieve)
    async with scripted_api(fails(400, x_should_retry="true"), sends(MODEL)) as api:
        await ask(api, retrieve)
    assert len(api.seen) == 2


@both
async def test_a_service_that_hangs_is_a_timeout(ask: Ask) -> None:
    async with scripted_api(hangs) as api:
        with pytest.raises(luthier.APITimeoutError):
            await ask(api, retrieve, timeout=0.05, max_retries=1)
    assert len(api.seen) == 2


@both
async def test_tries_of_one_request_have_one_idempotency_key_and_the_whole_body(ask: Ask, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"abc")

    def upload(sdk: Any) -> Any:
        return sdk.files.create(file=rows, purpose="fine-tune", expires_after_anchor="created_at")

    async with scripted_api(fails(503), cuts, sends(FILE)) as api:
        await ask(api, upload)
        await ask(api, upload)
    keys = [seen.headers["idempotency-key"] for seen in api.seen]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    for seen in api.seen:
        assert b'filename="rows.jsonl"' in seen.body and b"\r\nabc\r\n" in seen.body
        assert b'name="expires_after[anchor]"\r\n\r\ncreated_at' in seen.body


@both
async def test_a_pipe_is_refused_before_it_is_read(ask: Ask) -> None:
    read, write = os.pipe()
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        async with scripted_api(sends(FILE)) as api:
            with pytest.raises(ValueError, match="Write it to a file first"):
                await ask(api, lambda sdk: sdk.files.create(file=("a", pipe), purpose="fine-tune"))
    assert api.seen == []


def test_retry_after_is_honoured_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_DELAY_SECONDS", 0.5)
    monkeypatch.setattr("time.time", lambda: 784111770.0)
    assert retries.delay_seconds(1, {"retry-after": "7", "retry-after-ms": "1500"}) == 1.5
    assert retries.delay_seconds(1, {"retry-after": "7"}) == 7
    assert retries.delay_seconds(1, {"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}) == 7
    for headers in ({}, {"retry-after": "soon"}, {"retry-after": "-1"}, {"retry-after": "100000"}):
        assert 0.375 <= retries.delay_seconds(1, headers) <= 0.5
    assert 6 <= retries.delay_seconds(99) <= 8


@both
@pytest.mark.parametrize("body", [[], {"id": 5}, {"created": 1, "owned_by": "x"}])
async def test_a_response_of_another_shape_is_an_exception(ask: Ask, body: object) -> None:
    async with scripted_api(sends(body)) as api:
        with pytest.raises(luthier.APIResponseValidationError, match="ModelObject"):
            await ask(api, retrieve)


@both
async def test_words_and_fields_of_a_newer_service_pass(ask: Ask) -> None:
    async with scripted_api(sends({**FILE, "status": "thawing", "owner": {"id": "user-1"}})) as api:
        found = await ask(api, lambda sdk: sdk.files.retrieve("file-1"))
    assert (found.status, found.extra) == ("thawing", {"owner": {"id": "user-1"}})


@both
async def test_an_id_never_leads_to_another_path(ask: Ask) -> None:
    async with scripted_api(sends(MODEL)) as api:
        await ask(api, lambda sdk: sdk.models.retrieve("a/../b?c"))
        for bad in ("", ".", ".."):
            with pytest.raises(ValueError, match="model must be the id"):
                await ask(api, lambda sdk, bad=bad: sdk.models.retrieve(bad))
    assert [seen.path for seen in api.seen] == ["/v1/models/a%2F..%2Fb%3Fc"]


async def test_iterating_asks_for_the_next_page_when_it_is_needed() -> None:
    def page(more: bool, *ids: str) -> Any:
        return sends({"object": "list", "data": [{**FILE, "id": id} for id in ids], "has_more": more})

    async with scripted_api(page(True, "1", "2"), fails(503), page(False, "3")) as api:
        async with AsyncLuthier(url=api.url, api_key="key") as sdk:
            assert [file.id async for file in sdk.files.list(limit=2)] == ["1", "2", "3"]
            first = await sdk.files.list()
            assert [file.id for file in first.data] == ["3"] and await first.next_page() is None
        paths = [seen.path for seen in api.seen]
        assert paths[:3] == ["/v1/files?limit=2", *["/v1/files?limit=2&after=2"] * 2]
    async with scripted_api(page(True, "1", "2"), page(True)) as api:
        found = await ask_sync(api, lambda sdk: [file.id for file in sdk.files.list(order="asc")])
    assert found == ["1", "2"] and len(api.seen) == 2  # an empty page ends it, whatever it says


async def messages_async(sdk: AsyncLuthier, into: list[str]) -> None:
    async for event in await sdk.fine_tuning.jobs.events.stream("ftjob-1"):
        into.append(event.message)


def messages_sync(sdk: Luthier, into: list[str]) -> None:
    for event in sdk.fine_tuning.jobs.events.stream("ftjob-1"):
        into.append(event.message)


ways = pytest.mark.parametrize(
    ("ask", "follow"), [(ask_sync, messages_sync), (ask_async, messages_async)], ids=["sync", "async"]
)


@ways
async def test_a_stream_comes_in_any_pieces(ask: Ask, follow: Any) -> None:
    said: list[str] = []
    text = b": heartbeat\n" + LINE.replace(b"\n", b"\r\n") + DONE
    async with scripted_api(streams(*(text[place : place + 1] for place in range(len(text))))) as api:
        await ask(api, lambda sdk: follow(sdk, said))
    assert said == ["a\u2028b"] and api.seen[0].path.endswith("/events?stream=true")


@ways
@pytest.mark.parametrize(
    ("script", "kind", "match"),
    [
        (streams(LINE, cut=True), luthier.APIConnectionError, "broke off"),
        (streams(LINE), luthier.APIConnectionError, "broke off"),
        (streams(LINE, b'data: {"error": {"message": "It broke.", "code": "x"}}\n\n'), luthier.APIError, "It broke"),
        (streams(LINE, b"data: {\n\n"), luthier.APIResponseValidationError, "not JSON"),
        (streams(LINE, b"data: {}\n\n"), luthier.APIResponseValidationError, "EventObject"),
    ],
    ids=["cut", "ends early", "error", "no JSON", "no event"],
)
async def test_a_stream_that_breaks_raises_after_what_came(
    ask: Ask, follow: Any, script: Any, kind: type[Exception], match: str
) -> None:
    said: list[str] = []
    async with scripted_api(script) as api:
        with pytest.raises(kind, match=match):
            await ask(api, lambda sdk: follow(sdk, said))
    assert said == ["a\u2028b"] and len(api.seen) == 1


@both
async def test_a_stream_without_a_last_word_ends_with_its_response(ask: Ask) -> None:
    async def read_async(sdk: AsyncLuthier) -> list[Any]:
        return [one async for one in await sdk.responses.stream(model="m", input="x")]

    def read(sdk: Any) -> Any:
        if isinstance(sdk, AsyncLuthier):
            return read_async(sdk)
        return list(sdk.responses.stream(model="m", input="x"))

    event = b'data: {"type": "response.created"}\n\n'
    async with scripted_api(streams(event), streams(event, cut=True), streams(b"data: []\n\n")) as api:
        assert await ask(api, read) == [{"type": "response.created"}]
        with pytest.raises(luthier.APIConnectionError):
            await ask(api, read)
        with pytest.raises(luthier.APIResponseValidationError):
            await ask(api, read)


def test_events_are_read_as_the_standard_says() -> None:
    events = Events()
    text = b"\ndata:one\rdata:  two\r\nid: 7\n\ndata\nother: x\n\n: comment\n\ndata: [1]\n\ndata: unfinished"
    assert [list(events.feed(chunk)) for chunk in (text[:9], text[9:20], text[20:])] == [
        [],
        [],
        ["one\n two", "", "[1]"],
    ]
    assert events.last_id == "7"


@both
async def test_a_download_that_breaks_off_leaves_no_file(ask: Ask, tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"

    async def fetch_async(sdk: AsyncLuthier) -> None:
        await (await sdk.files.download("file-1")).write_to_file(target)

    def fetch(sdk: Any) -> Any:
        if isinstance(sdk, AsyncLuthier):
            return fetch_async(sdk)
        return sdk.files.download("file-1").write_to_file(target)

    async with scripted_api(
        streams(b"abc", cut=True, kind="application/octet-stream"), streams(b"abcd", kind="application/octet-stream")
    ) as api:
        with pytest.raises(luthier.APIConnectionError):
            await ask(api, fetch)
        assert not target.exists()
        await ask(api, fetch)
    assert target.read_bytes() == b"abcd" and list(tmp_path.glob(".*.part")) == []


async def test_a_service_that_is_down_is_named() -> None:
    sdk = Luthier(url="http://127.0.0.1:1/v1", api_key="key", max_retries=0)
    with pytest.raises(luthier.APIConnectionError, match=r"http://127\.0\.0\.1:1 cannot be reached"):
        await asyncio.to_thread(sdk.models.retrieve, "x")
    sdk.close()
