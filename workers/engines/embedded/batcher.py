"""From requests to batches: who joins when, in one thread beside the event loop.

The loop's side decides who joins and carries pieces to their exchanges; the thread's side computes one turn at a time
(prompts of newcomers, one token for every row, the next forward pass). Attaching and detaching adapters go through the
same thread, so they happen between turns. Must not know HTTP or names of models.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import structlog

from service.domain.errors import LuthierError, Unavailable
from workers.engines.embedded.choice import Choice, Piece
from workers.engines.embedded.request import Exchange
from workers.model.generate import Batch

log = structlog.get_logger()
PREFILL_TOKENS = 2048  # prompt tokens per turn, one prompt at least: what rows in progress wait for newcomers
WAITING_LIMIT = 1024  # sequences that may wait for a place

P = ParamSpec("P")
T = TypeVar("T")
Group = tuple[Exchange, list[Choice]]  # choices that share a prompt
News = list[tuple[Exchange, Piece | LuthierError]]


class GenerationFailed(LuthierError):
    """The model could not compute this batch: 500, and the engine lives on."""


@dataclass
class Counts:
    """What happened since the start."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    failures: int = 0


class Batcher:
    """Owns the thread and everything that is computed in it."""

    def __init__(self, batch: Batch, rows_limit: int) -> None:
        self._batch = batch
        self._rows_limit = rows_limit
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._waiting: deque[Exchange] = deque()
        self._running: dict[Choice, Exchange] = {}  # in the order of the batch's rows
        self._bell = asyncio.Event()
        self.counts = Counts()

    @property
    def num_running(self) -> int:
        return len(self._running)

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
                if not self._waiting and not self._running:
                    self._bell.clear()
        finally:
            self._thread.shutdown(wait=True)  # a turn in progress ends first
            for exchange in {*self._running.values(), *self._waiting}:
                exchange.tell(Unavailable("The engine is shutting down."))

    def _admit(self) -> list[Group]:
        """Who joins now: requests in turn, and while several wait, each only with its share of the free places."""
        admitted: list[Group] = []
        free, tokens = self._rows_limit - len(self._running), 0
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
        """In the thread. What the model raises is told to those whom it concerns."""
        news: News = []
        try:
            self._keep([choice for choice in self._running if choice.wanted])
            for exchange, choices in newcomers:
                self._join(exchange, choices, news)
            self._step(news)
        except Exception as error:
            failure = self._failure(error)
            news += [(exchange, failure) for exchange in {*self._running.values(), *dict(newcomers)}]
            self._running = {}
            self._batch.clear()
        return news

    def _join(self, exchange: Exchange, choices: list[Choice], news: News) -> None:
        try:
            prefilled = self._batch.prefill([choice.row for choice in choices])
        except Exception as error:  # nobody else's rows were touched
            news.append((exchange, self._failure(error)))
            return
        self._batch.join(prefilled)
        self._running |= dict.fromkeys(choices, exchange)
        self.counts.prompt_tokens += len(choices[0].row.prompt)
        for choice in choices:
            _add(news, exchange, choice.begin(prefilled.scores))
        self._keep([choice for choice in self._running if not choice.finished])

    def _step(self, news: News) -> None:
        """One token for every row, and the forward pass for those that go on."""
        if not self._running:
            return
        tokens = self._batch.sample()
        self.counts.generated_tokens += len(tokens)
        for (choice, exchange), token in zip(self._running.items(), tokens, strict=True):
            _add(news, exchange, choice.accept(token))
        self._keep([choice for choice in self._running if not choice.finished])
        self._batch.advance()

    def _keep(self, choices: list[Choice]) -> None:
        self._running = {choice: self._running[choice] for choice in choices}
        self._batch.keep({choice.row for choice in choices})

    def _failure(self, error: Exception) -> GenerationFailed:
        self.counts.failures += 1
        log.error("generation.failed", exc_info=error)
        return GenerationFailed("The engine failed to generate this answer.", code="generation_failed")


def _add(news: News, exchange: Exchange, piece: Piece | None) -> None:
    if piece is not None:
        news.append((exchange, piece))
