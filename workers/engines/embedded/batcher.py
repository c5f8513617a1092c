"""From requests to batches: who joins when, in one thread beside the event loop.

The loop's side decides who joins and carries pieces to their exchanges; the thread's side computes one turn at a time
(prompts of newcomers, one token for every row, the next forward pass), in every lane that has rows, so that no lane
waits longer than for one token of each other. Attaching and detaching adapters go through the same thread, so they
happen between turns. Must not know HTTP or names of models.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import structlog

from service.domain.errors import LuthierError, Unavailable
from workers.engines.embedded.choice import Choice, Piece
from workers.engines.embedded.request import Exchange
from workers.model.adapters import Adapter
from workers.model.generate import Batch, Prefilled
from workers.model.load import LoadedBase

log = structlog.get_logger()
PREFILL_TOKENS = 2048  # prompt tokens per turn, one prompt at least: what rows in progress wait for newcomers
WAITING_LIMIT = 1024  # sequences that may wait for a place

P = ParamSpec("P")
T = TypeVar("T")
Group = tuple[Exchange, list[Choice]]  # choices that share a prompt
News = list[tuple[Exchange, Piece | LuthierError]]


class GenerationFailed(LuthierError):
    """The model could not compute this batch: 500, and the engine lives on."""


def lane_of(adapter: Adapter | None) -> Adapter | None:
    """Whose lane a row with `adapter` takes: None is the base's."""
    return None if adapter is None or adapter.tuning.mixes_rows else adapter


class Lane:
    """When a method other than `prefill` raises, call `fail`: the rows cannot go on."""

    def __init__(self, base: LoadedBase, adapter: Adapter | None) -> None:
        self._batch = Batch(base, adapter)
        self._running: dict[Choice, Exchange] = {}  # in the order of the batch's rows

    @property
    def exchanges(self) -> set[Exchange]:
        return set(self._running.values())

    def __len__(self) -> int:
        return len(self._running)

    def prefill(self, choices: Sequence[Choice]) -> Prefilled:
        """Computes the prompt that `choices` share; nothing changes for the rows in progress."""
        return self._batch.prefill([choice.row for choice in choices])

    def join(self, exchange: Exchange, choices: Sequence[Choice], prefilled: Prefilled) -> News:
        """Puts them behind the rows in progress."""
        self._running |= dict.fromkeys(choices, exchange)
        self._batch.join(prefilled)
        pieces = [choice.begin(prefilled.scores) for choice in choices]
        self._keep(choice for choice in self._running if not choice.finished)
        return [(exchange, piece) for piece in pieces if piece is not None]

    def drop_unwanted(self) -> None:
        """Ends the rows of those who have gone."""
        self._keep(choice for choice in self._running if choice.wanted)

    def step(self) -> tuple[News, int]:
        """One token for every row, and the forward pass for those that go on; with the number of tokens."""
        tokens = self._batch.sample()
        pieces = [
            (exchange, choice.accept(token))
            for (choice, exchange), token in zip(self._running.items(), tokens, strict=True)
        ]
        self._keep(choice for choice in self._running if not choice.finished)
        self._batch.advance()
        return [(exchange, piece) for exchange, piece in pieces if piece is not None], len(tokens)

    def fail(self, error: LuthierError) -> News:
        """Ends every row with `error`."""
        news: News = [(exchange, error) for exchange in self.exchanges]
        self._running = {}
        self._batch.clear()
        return news

    def _keep(self, choices: Iterable[Choice]) -> None:
        self._running = {choice: self._running[choice] for choice in choices}
        self._batch.keep({choice.row for choice in self._running})


@dataclass
class Counts:
    """What happened since the start."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    failures: int = 0


class Batcher:
    """Owns the thread and everything that is computed in it."""

    def __init__(self, base: LoadedBase, rows_limit: int) -> None:
        self._base = base
        self._rows_limit = rows_limit
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._waiting: deque[Exchange] = deque()
        self._lanes: dict[Adapter | None, Lane] = {}  # those with rows; changed by the thread
        self._bell = asyncio.Event()
        self.counts = Counts()

    @property
    def num_running(self) -> int:
        return sum(map(len, list(self._lanes.values())))

    @property
    def num_waiting(self) -> int:
        return sum(exchange.num_waiting for exchange in self._waiting)

    def submit(self, prompts: Sequence[Sequence[Choice]]) -> Exchange:
        """Queues one request: for every prompt the choices that share it. Raises Unavailable when too much waits."""
        if self.num_waiting >= WAITING_LIMIT:
            raise Unavailable("The engine is currently overloaded, please try again later.")
        exchange = Exchange(prompts)
        self._waiting.append(exchange)
        self._bell.set()
        return exchange

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `function` in the thread, between two turns."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))

    async def run(self) -> None:
        """Generates until it is cancelled."""
        try:
            while True:
                await self._bell.wait()
                for exchange, news in await self.call(self._turn, self._admit()):
                    exchange.tell(news)
                if not self._waiting and not self._lanes:
                    self._bell.clear()
        finally:
            self._thread.shutdown(wait=True)  # a turn in progress ends first
            for exchange in {*self._waiting}.union(*(lane.exchanges for lane in self._lanes.values())):
                exchange.tell(Unavailable("The engine is shutting down."))

    def _admit(self) -> list[Group]:
        """Who joins now: requests in turn, and while several wait, each only with its share of the free places."""
        admitted: list[Group] = []
        free, tokens = self._rows_limit - self.num_running, 0
        while free > 0 and tokens < PREFILL_TOKENS and self._waiting:
            share = max(1, free // len(self._waiting))
            exchange = self._waiting.popleft()
            choices = exchange.take(share)
            if exchange.num_waiting:
                self._waiting.append(exchange)
            if choices:
                admitted.append((exchange, choices))
                free -= len(choices)
                tokens += len(choices[0].row.prompt)
        return admitted

    def _turn(self, newcomers: list[Group]) -> News:
        """In the thread. What the model raises goes to those whom it concerns."""
        news: News = []
        for lane in self._lanes.values():
            with self._failing(lane, news):
                lane.drop_unwanted()
        for exchange, choices in newcomers:
            self._join(exchange, choices, news)
        for lane in self._lanes.values():
            if lane:
                with self._failing(lane, news):
                    self._step(lane, news)
        self._lanes = {adapter: lane for adapter, lane in self._lanes.items() if lane}
        return news

    def _join(self, exchange: Exchange, choices: list[Choice], news: News) -> None:
        owner = lane_of(choices[0].row.adapter)
        lane = self._lanes.setdefault(owner, Lane(self._base, owner))
        try:
            prefilled = lane.prefill(choices)
        except Exception as error:  # nobody else's rows were touched
            news.append((exchange, self._failure(error)))
            return
        self.counts.prompt_tokens += len(choices[0].row.prompt)
        with self._failing(lane, news):
            news += lane.join(exchange, choices, prefilled)

    def _step(self, lane: Lane, news: News) -> None:
        pieces, num_tokens = lane.step()
        self.counts.generated_tokens += num_tokens
        news += pieces

    @contextmanager
    def _failing(self, lane: Lane, news: News) -> Iterator[None]:
        """What is raised inside ends the rows of this lane, and of no other."""
        try:
            yield
        except Exception as error:
            news += lane.fail(self._failure(error))

    def _failure(self, error: Exception) -> GenerationFailed:
        self.counts.failures += 1
        log.error("generation.failed", exc_info=error)
        return GenerationFailed("The engine failed to generate this answer.", code="generation_failed")
