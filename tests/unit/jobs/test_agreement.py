"""The agreement rows in storage, an engine's scores of them, and the difference between both."""

import math
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from service.storage import StorageError
from service.storage.base import one_chunk
from service.storage.local import LocalStore
from tests.given.scripted_engine import ScriptedEngine, answers, scripted_engine
from workers.files.transfer import ObjectCorrupt
from workers.jobs.agreement import EngineRefused, Engines, EngineUnavailable, compare, fetch_agreement, store_agreement
from workers.trainer.protocol import ScoredRow

ROWS = [ScoredRow(ids=[5, 6, 7], logprobs=[-1.0, -2.0]), ScoredRow(ids=[8, 9], logprobs=[-3.0])]
IDS = [[5, 6, 7], [8, 9]]
NOBODY = "http://127.0.0.1:1"


def test_the_difference_is_the_mean_of_absolute_ones() -> None:
    found = compare(ROWS, [[-1.25, -1.75], [-3.0]])
    assert (found.mean, found.largest, found.num_tokens) == (0.5 / 3, 0.25, 3)
    assert (found.trained, found.served) == (-2.0, -2.0)  # which agree, although their tokens do not


@pytest.mark.parametrize("broken", [math.nan, -math.inf])
def test_a_value_that_is_not_finite_differs_infinitely(broken: float) -> None:
    found = compare(ROWS, [[-1.0, broken], [-3.0]])
    assert found.mean == found.largest == math.inf


def test_fewer_tokens_than_were_scored_are_no_agreement() -> None:
    with pytest.raises(ValueError):
        compare(ROWS, [[-1.0, -2.0], []])
    with pytest.raises(ValueError):
        compare([], [])


async def test_the_rows_come_back_to_the_last_bit_or_not_at_all(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    rows = [ScoredRow(ids=[1, 2], logprobs=[-1 / 3])]
    key, sha256 = await store_agreement(store, "ftjob-1", "ft:tiny:acme::a1b2c3d4", rows)
    assert key.startswith("jobs/ftjob-1/")  # and goes with all that is the job's own
    assert await fetch_agreement(store, key, sha256) == rows
    await store.put(key, one_chunk(b"[]"))
    with pytest.raises(ObjectCorrupt):
        await fetch_agreement(store, key, sha256)


async def test_a_store_that_breaks_off_gets_all_of_it_at_the_next_try(tmp_path: Path) -> None:
    class BreaksOff(LocalStore):
        broken = False

        async def put(self, key: str, chunks: AsyncIterator[bytes], *, replace: bool = True) -> int:
            if self.broken:
                return await super().put(key, chunks, replace=replace)
            self.broken = True
            async for _ in chunks:  # the line is cut when everything has been sent
                pass
            raise StorageError(key)

    store = BreaksOff(tmp_path)
    key, sha256 = await store_agreement(store, "ftjob-1", "ft:tiny:acme::a1b2c3d4", ROWS)
    assert await fetch_agreement(store, key, sha256) == ROWS


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as engine:
        yield engine


def scored(*logprobs: float | None) -> bytes:
    """An answer with these log-probabilities."""
    return orjson.dumps({"choices": [{"index": 0, "text": "", "logprobs": {"token_logprobs": logprobs}}]})


async def constantly(request: web.Request, logprob: float) -> web.Response:
    """Every token is as likely as any other."""
    num_tokens = len((await request.json())["prompt"])
    return web.Response(body=scored(None, *[logprob] * num_tokens), content_type="application/json")


async def test_rows_are_asked_for_by_their_tokens_and_the_generated_token_is_left_out(engine: ScriptedEngine) -> None:
    engine.script = answers(scored(None, -1.5, -2.5, -9.0))
    assert await Engines([engine.url]).score("ft:a", IDS) == [[-1.5, -2.5], [-1.5]]
    assert [(asked["path"], asked["model"], asked["prompt"]) for asked in engine.seen] == [
        ("/v1/completions", "ft:a", row) for row in IDS
    ]


async def test_what_an_engine_could_not_compute_is_no_number(engine: ScriptedEngine) -> None:
    engine.script = answers(scored(None, None, -2.5))
    ((first, second),) = await Engines([engine.url]).score("ft:a", IDS[:1])
    assert math.isnan(first)
    assert second == -2.5


@pytest.mark.parametrize("status", [404, 408, 429, 500, 502, 503])
async def test_an_engine_that_cannot_now_is_asked_again(engine: ScriptedEngine, status: int) -> None:
    engine.script = answers(b'{"error": {"message": "later"}}', status)
    with pytest.raises(EngineUnavailable):
        await Engines([engine.url, NOBODY]).score("ft:a", IDS)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"error": {"message": "rank 32 is too much"}}', 400),
        (b'{"error": {"message": "rank 32 is too much", "code": "adapter_unusable"}}', 503),
    ],
)
async def test_an_engine_that_never_will_is_believed(engine: ScriptedEngine, body: bytes, status: int) -> None:
    engine.script = answers(body, status)
    with pytest.raises(EngineRefused, match="rank 32 is too much"):
        await Engines([engine.url]).score("ft:a", IDS)


@pytest.mark.parametrize(
    "body", [b"<html>", b"{}", b'{"choices": []}', b'{"choices": [{"logprobs": null}]}', scored(None, -1.5), scored()]
)
async def test_an_answer_without_the_log_probabilities_is_none(engine: ScriptedEngine, body: bytes) -> None:
    engine.script = answers(body)
    with pytest.raises(EngineRefused):
        await Engines([engine.url]).score("ft:a", IDS)


async def test_another_replica_is_asked_when_one_is_down_and_after_one_has_answered(engine: ScriptedEngine) -> None:
    async with scripted_engine() as other:
        engine.script = partial(constantly, logprob=-1.0)
        other.script = partial(constantly, logprob=-2.0)
        engines = Engines([NOBODY, engine.url, other.url])
        assert [(await engines.score("ft:a", IDS))[1] for _ in range(3)] == [[-1.0], [-2.0], [-1.0]]
