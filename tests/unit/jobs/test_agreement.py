"""The agreement rows in storage, and an engine's scores of them, under the model's name and its base's."""

import asyncio
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
from tests.given.scripted_engine import Script, ScriptedEngine, answers, scripted_engine
from workers.files.transfer import ObjectCorrupt
from workers.jobs.agreement import EngineRefused, Engines, EngineUnavailable, fetch_agreement, store_agreement
from workers.trainer.protocol import ScoredRow

ROWS = [
    ScoredRow(ids=[5, 6, 7], logprobs=[-1.0, -2.0], base_logprobs=[-2.0, -2.5]),
    ScoredRow(ids=[8, 9], logprobs=[-3.0], base_logprobs=[-3.5]),
]
IDS = [[5, 6, 7], [8, 9]]
NOBODY = "http://127.0.0.1:1"


async def test_the_rows_come_back_to_the_last_bit_or_not_at_all(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    rows = [ScoredRow(ids=[1, 2], logprobs=[-1 / 3], base_logprobs=[-2 / 3], nudged_effects=[1 / 3])]
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


def only_for(model: str) -> Script:
    """An engine that has this model and no other."""

    async def script(request: web.Request) -> web.StreamResponse:
        if (await request.json())["model"] == model:
            return await constantly(request, -1.0)
        return web.json_response({"error": {"message": "no such model"}}, status=404)

    return script


async def test_rows_are_asked_for_by_their_tokens_and_the_generated_token_is_left_out(engine: ScriptedEngine) -> None:
    engine.script = answers(scored(None, -1.5, -2.5, -9.0))
    assert await Engines([engine.url]).score(["ft:a", "tiny"], IDS) == [[[-1.5, -2.5], [-1.5]]] * 2
    assert [(asked["path"], asked["model"], asked["prompt"]) for asked in engine.seen] == [
        ("/v1/completions", model, row) for model in ("ft:a", "tiny") for row in IDS
    ]


async def test_rows_are_asked_for_beside_each_other_and_stay_in_order(engine: ScriptedEngine) -> None:
    together = asyncio.Barrier(2)  # opens only if both rows are there at a time

    async def script(request: web.Request) -> web.Response:
        await asyncio.wait_for(together.wait(), 10)
        return await constantly(request, -float(len((await request.json())["prompt"])))

    engine.script = script
    found = await Engines([engine.url], at_once=2).score(["ft:a"], IDS)
    assert found == [[[-float(len(row))] * (len(row) - 1) for row in IDS]]


async def test_what_an_engine_could_not_compute_is_no_number(engine: ScriptedEngine) -> None:
    engine.script = answers(scored(None, None, -2.5))
    (((first, second),),) = await Engines([engine.url]).score(["ft:a"], IDS[:1])
    assert math.isnan(first)
    assert second == -2.5


@pytest.mark.parametrize("status", [404, 408, 429, 500, 502, 503])
async def test_an_engine_that_cannot_now_is_asked_again(engine: ScriptedEngine, status: int) -> None:
    engine.script = answers(b'{"error": {"message": "later"}}', status)
    with pytest.raises(EngineUnavailable):
        await Engines([engine.url, NOBODY]).score(["ft:a"], IDS)


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
        await Engines([engine.url]).score(["ft:a"], IDS)


@pytest.mark.parametrize(
    "body", [b"<html>", b"{}", b'{"choices": []}', b'{"choices": [{"logprobs": null}]}', scored(None, -1.5), scored()]
)
async def test_an_answer_without_the_log_probabilities_is_none(engine: ScriptedEngine, body: bytes) -> None:
    engine.script = answers(body)
    with pytest.raises(EngineRefused):
        await Engines([engine.url]).score(["ft:a"], IDS)


async def test_another_replica_is_asked_when_one_is_down_and_after_one_has_answered(engine: ScriptedEngine) -> None:
    async with scripted_engine() as other:
        engine.script = partial(constantly, logprob=-1.0)
        other.script = partial(constantly, logprob=-2.0)
        engines = Engines([NOBODY, engine.url, other.url])
        found = [await engines.score(["ft:a", "tiny"], IDS) for _ in range(3)]
        assert [[scores[1] for scores in models] for models in found] == [[[-1.0]] * 2, [[-2.0]] * 2, [[-1.0]] * 2]


async def test_model_and_base_are_scored_by_one_engine(engine: ScriptedEngine) -> None:
    """An effect is a difference of two values: with those of two engines it would hold the difference of these."""
    async with scripted_engine() as whole:
        engine.script = only_for("ft:a")
        whole.script = partial(constantly, logprob=-2.0)
        found = await Engines([engine.url, whole.url]).score(["ft:a", "tiny"], IDS[1:])
        assert found == [[[-2.0]], [[-2.0]]]
        assert [asked["model"] for asked in engine.seen] == ["ft:a", "tiny"]
