"""Adapters that do not mix decode in lanes of their own, beside all others, and no lane waits for another."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.domain.errors import LuthierError
from tests.given.engines import LORA, greedy, load_tiny, local_store, make_engine, publish, save_adapter
from tests.given.own_tunings import OWN_SPECS, LastBlock, offer_own
from workers.engines.embedded.choice import Choice
from workers.engines.embedded.request import GenerationRequest
from workers.engines.embedded.vocabulary import Vocabulary
from workers.model.generate import BatchRow
from workers.model.load import weights_digest
from workers.model.sampling import Sampling
from workers.tunings.sites import Rows

NUM_TOKENS = 12


class Shop:
    """A running engine with the base and a model of every kind, and what each says by plain forward passes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base, self.loaded = load_tiny(root / "base")
        self.engine = make_engine(self.base, self.loaded, root)
        self.prompt = self.loaded.tokenizer.encode("Once upon a time")
        self.names = {"base": "tiny"}
        self.says = {"base": greedy(self.loaded, None, self.prompt, NUM_TOKENS)}
        self._vocabulary = Vocabulary(self.loaded)
        self._vocabulary.end_tokens = frozenset()  # every row continues to its limit

    async def stock(self) -> None:
        for seed, (kind, spec) in enumerate({"lora": LORA, **OWN_SPECS}.items()):
            folder = save_adapter(self.loaded, self.root / kind, seed, spec)
            publication = kind.replace("_", "")[:8].ljust(8, "a")
            self.names[kind] = await publish(
                local_store(self.root / "objects"), self.base, self.loaded, folder, publication, kind
            )
            self.says[kind] = greedy(self.loaded, folder, self.prompt, NUM_TOKENS)
        assert len({tuple(ids) for ids in self.says.values()}) == len(self.says) == 5

    async def submit(
        self, stack: AsyncExitStack, kind: str, limit: int = NUM_TOKENS
    ) -> tuple[BatchRow, GenerationRequest]:
        """A request to the model of that kind, which stays in memory until the stack ends."""
        _, adapter = await stack.enter_async_context(self.engine.model(self.names[kind]))
        row = BatchRow(self.prompt, Sampling(temperature=0.0), adapter)
        return row, self.engine.batcher.submit([[Choice(0, row, limit, self._vocabulary)]])


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    offer_own(monkeypatch)
    shop = Shop(tmp_path)
    await shop.stock()
    async with shop.engine.running():
        yield shop
    assert weights_digest(shop.loaded.model) == shop.loaded.hashes["weights"]


async def finished(generation: GenerationRequest) -> None:
    async for _ in generation.pieces():
        pass


async def test_every_model_says_the_same_beside_all_others(shop: Shop) -> None:
    async with AsyncExitStack() as stack:
        asked = {kind: await shop.submit(stack, kind) for kind in shop.names}
        await asyncio.gather(*(finished(generation) for _, generation in asked.values()))
        assert {kind: row.generated for kind, (row, _) in asked.items()} == shop.says


async def test_lanes_take_turns_token_by_token(shop: Shop) -> None:
    async with AsyncExitStack() as stack:
        asked = [await shop.submit(stack, kind, limit=60) for kind in ("base", "last_block", "lora")]
        asking = asyncio.gather(*(finished(generation) for _, generation in asked))
        leads = set()
        while not asking.done():
            lengths = await shop.engine.batcher.call(lambda: [len(row.generated) for row, _ in asked])
            if min(lengths) and max(lengths) < 60:
                leads.add(max(lengths) - min(lengths))
        await asking
        assert len(leads) == 1  # as far apart as they began, at every moment that all of them ran


async def test_what_fails_in_one_lane_ends_no_row_of_another(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncExitStack() as stack:
        asked: dict[str, tuple[BatchRow, GenerationRequest]] = {}

        def fail(self: LastBlock, rows: Rows | None = None) -> None:
            if self._parameters and any(row.generated for row, _ in asked.values()):
                raise RuntimeError("broken")

        monkeypatch.setattr(LastBlock, "activate", fail)
        for kind in shop.names:
            asked[kind] = await shop.submit(stack, kind)
        failing = asked.pop("last_block")[1]
        with pytest.raises(LuthierError, match="failed to generate"):
            await finished(failing)
        await asyncio.gather(*(finished(generation) for _, generation in asked.values()))
        assert {kind: row.generated for kind, (row, _) in asked.items()} == {
            kind: says for kind, says in shop.says.items() if kind != "last_block"
        }
        assert shop.engine.batcher.counts.failures == 1
