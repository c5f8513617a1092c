"""What an engine answers to "how likely are these tokens": understood, refused, or a reason to ask again."""

import math
from collections.abc import AsyncIterator
from functools import partial

import orjson
import pytest
from aiohttp import web

from tests.given.scripted_engine import ScriptedEngine, answers, scripted_engine
from workers.jobs.scoring import EngineAway, EngineRefused, Engines

ROWS = [[5, 6, 7], [8, 9]]
NOBODY = "http://127.0.0.1:1"


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
    assert await Engines([engine.url]).score("ft:a", ROWS) == [[-1.5, -2.5], [-1.5]]
    assert [(asked["path"], asked["model"], asked["prompt"]) for asked in engine.seen] == [
        ("/v1/completions", "ft:a", row) for row in ROWS
    ]


async def test_what_an_engine_could_not_compute_is_no_number(engine: ScriptedEngine) -> None:
    engine.script = answers(scored(None, None, -2.5))
    ((first, second),) = await Engines([engine.url]).score("ft:a", ROWS[:1])
    assert math.isnan(first)
    assert second == -2.5


@pytest.mark.parametrize("status", [404, 408, 429, 500, 502, 503])
async def test_an_engine_that_cannot_now_is_asked_again(engine: ScriptedEngine, status: int) -> None:
    engine.script = answers(b'{"error": {"message": "later"}}', status)
    with pytest.raises(EngineAway):
        await Engines([engine.url, NOBODY]).score("ft:a", ROWS)


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
        await Engines([engine.url]).score("ft:a", ROWS)


@pytest.mark.parametrize(
    "body", [b"<html>", b"{}", b'{"choices": []}', b'{"choices": [{"logprobs": null}]}', scored(None, -1.5), scored()]
)
async def test_an_answer_without_the_log_probabilities_is_none(engine: ScriptedEngine, body: bytes) -> None:
    engine.script = answers(body)
    with pytest.raises(EngineRefused):
        await Engines([engine.url]).score("ft:a", ROWS)


async def test_another_replica_is_asked_when_one_is_down_and_after_one_has_answered(engine: ScriptedEngine) -> None:
    async with scripted_engine() as other:
        engine.script = partial(constantly, logprob=-1.0)
        other.script = partial(constantly, logprob=-2.0)
        engines = Engines([NOBODY, engine.url, other.url])
        assert [(await engines.score("ft:a", ROWS))[1] for _ in range(3)] == [[-1.0], [-2.0], [-1.0]]
