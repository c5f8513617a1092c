"""What the batch does with too much work, and with work at its end."""

import asyncio
from pathlib import Path

import pytest

from service.domain.errors import Unavailable
from tests.given.engines import load_tiny, make_engine
from workers.engines.embedded.batcher import WAITING_LIMIT
from workers.engines.embedded.engine import Engine
from workers.engines.embedded.request import GenerationRequest
from workers.engines.embedded.wire import CHOICES_LIMIT, CompletionRequest


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return make_engine(*load_tiny(tmp_path / "base"), tmp_path)


async def submit(engine: Engine, n: int = 1, max_tokens: int = 200) -> GenerationRequest:
    request = CompletionRequest(model="tiny", prompt="Once", n=n, max_tokens=max_tokens, temperature=0)
    order = await engine.parser.completion(request, None)
    return engine.batcher.submit(order.prompts)


async def finish_reasons(generation: GenerationRequest) -> list[str]:
    return [piece.finish_reason async for piece in generation.pieces() if piece.finish_reason]


async def test_more_than_may_wait_is_refused(engine: Engine) -> None:
    for _ in range(WAITING_LIMIT // CHOICES_LIMIT):
        await submit(engine, n=CHOICES_LIMIT)
    with pytest.raises(Unavailable, match="overloaded"):
        await submit(engine)


async def test_closed_request_never_takes_a_place(engine: Engine) -> None:
    closed = await submit(engine, n=40)
    closed.close()
    waiting = await submit(engine, max_tokens=2)
    async with engine.running():
        assert await finish_reasons(waiting) == ["length"]
        assert engine.batcher.counts.generated_tokens == 2
        assert engine.batcher.num_waiting == 0


async def test_shutdown_tells_those_who_still_wait(engine: Engine) -> None:
    async with engine.running():
        generations = [await submit(engine, n=20), await submit(engine, n=20)]
        asking = [asyncio.create_task(finish_reasons(generation)) for generation in generations]
        while not engine.batcher.num_running:
            await asyncio.sleep(0.001)
    assert not engine.alive
    for answer in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(answer, Unavailable)


async def test_adapters_are_attached_between_two_turns_of_a_running_batch(engine: Engine) -> None:
    async with engine.running():
        generation = await submit(engine, max_tokens=100)
        calls = 0
        asking = asyncio.create_task(finish_reasons(generation))
        while not asking.done():
            running = await engine.batcher.call(lambda: engine.batcher.num_running)
            assert running in (0, 1)
            calls += 1
        assert calls > 10  # the batch let others into its thread
        assert len(await asking) == 1
