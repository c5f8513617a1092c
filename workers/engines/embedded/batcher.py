"""Continuous batching: which requests join a batch when, and the one thread in which everything is computed.

The event loop decides which requests join and delivers their pieces. The thread computes one turn at a time: the
prompts of new requests, one token for every row, the next forward pass.

A lane is a batch of rows that go through one model together. The base's lane holds the rows of the base and of all
adapters that mix. An adapter that does not mix, such as one with a private copy of the base, has a lane of its own
while it has rows. Every turn computes every lane, so a lane waits for at most one token of each other lane. A prompt
that the base has scored lately is not computed again. Adapters are attached and detached in the same thread, between
turns. Has no HTTP and no names of models.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import structlog

from service.domain.errors import LuthierError, Unavailable
from workers.engines.embedded.choice import Choice, Piece
from workers.engines.embedded.request import GenerationRequest
from workers.model.adapters import Adapter
from workers.model.generate import BatchRow, Prefilled
from workers.model.load import LoadedBase
from workers.model.sampling import Token
from workers.model.two_sided import batch_for

log = structlog.get_logger()
PREFILL_TOKENS = 2048  # prompt tokens per turn, one prompt at least: rows in progress wait for these
WAITING_LIMIT = 1024  # sequences in the queue
RESERVED = 4  # one of so many rows is never given to a request that has all the others
KEPT_TOKENS = 32_768  # whose scores are kept

P = ParamSpec("P")
T = TypeVar("T")
Group = tuple[GenerationRequest, list[Choice]]  # choices that share a prompt
News = list[tuple[GenerationRequest, Piece | LuthierError]]
ScoreKey = tuple[tuple[int, ...], tuple[int, ...], int | None]


class GenerationFailed(LuthierError):
    """The model could not compute this batch: status 500; the engine keeps running."""


def lane_of(adapter: Adapter | None) -> Adapter | None:
    """The lane of a row with `adapter`, by the adapter that owns it; None is the base's lane."""
    return None if adapter is None or adapter.tuning.mixes_rows else adapter


class Lane:
    """A batch, and the choice and request of each of its rows. Used in the thread only.

    When a method other than `prefill_all` raises, its rows cannot continue: call `fail`.
    """

    def __init__(self, base: LoadedBase, adapter: Adapter | None) -> None:
        self._batch = batch_for(base, adapter)
        self._running: dict[Choice, GenerationRequest] = {}  # in the order of the batch's rows

    @property
    def requests(self) -> set[GenerationRequest]:
        return set(self._running.values())

    @property
    def rows(self) -> list[GenerationRequest]:
        """The request of each row."""
        return list(self._running.values())

    def __len__(self) -> int:
        return len(self._running)

    def prefill_all(self, prompts: Sequence[Sequence[Choice]]) -> list[Prefilled]:
        """Computes the prompts, each of which some choices share; does not touch the rows in progress."""
        return self._batch.prefill_all([[choice.row for choice in choices] for choices in prompts])

    def join(self, groups: Sequence[Group], prefilled: Sequence[Prefilled]) -> News:
        """Appends the choices of all groups to the rows in progress; none of them ends with its prompt."""
        for request, choices in groups:
            self._running |= dict.fromkeys(choices, request)
        self._batch.join(*prefilled)
        news: News = []
        for (request, choices), theirs in zip(groups, prefilled, strict=True):
            news += begun(request, choices, theirs.scores)
        return news

    def drop_unwanted(self) -> None:
        """Ends the rows whose clients have disconnected."""
        self._keep(choice for choice in self._running if choice.wanted)

    def step(self) -> tuple[News, int]:
        """One token for every row, and the forward pass for the rows that continue; also returns how many tokens."""
        tokens = self._batch.sample()
        pieces = [
            (request, choice.accept(token))
            for (choice, request), token in zip(self._running.items(), tokens, strict=True)
        ]
        self._keep(choice for choice in self._running if not choice.finished)
        self._batch.advance()
        return [(request, piece) for request, piece in pieces if piece is not None], len(tokens)

    def fail(self, error: LuthierError) -> News:
        """Ends every row with `error`."""
        news: News = [(request, error) for request in self.requests]
        self._running = {}
        self._batch.clear()
        return news

    def _keep(self, choices: Iterable[Choice]) -> None:
        self._running = {choice: self._running[choice] for choice in choices}
        self._batch.keep({choice.row for choice in self._running})


class KeptScores:
    """The base's log-probabilities of prompts that were scored, of `limit_tokens` together at most. Used in the thread
    only.

    Workers compare every new model with its base on rows of the job's file, so jobs on one file ask for the base's
    scores of the same rows each time. Of the base alone: a model is mostly scored once. The longest unused are dropped.
    """

    def __init__(self, limit_tokens: int = KEPT_TOKENS) -> None:
        self._limit_tokens = limit_tokens
        self._num_tokens = 0
        self._kept: OrderedDict[ScoreKey, Sequence[Token]] = OrderedDict()

    def of(self, row: BatchRow) -> Sequence[Token] | None:
        """What the row asks for, where that is kept."""
        if not _kept_for(row) or (key := _score_key(row)) not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def keep(self, row: BatchRow, scores: Sequence[Token]) -> None:
        """Keeps what was computed for the row, if that may be asked for again."""
        if not _kept_for(row) or (key := _score_key(row)) in self._kept:
            return
        self._kept[key] = scores
        self._num_tokens += len(scores)
        while self._num_tokens > self._limit_tokens:
            _, dropped = self._kept.popitem(last=False)
            self._num_tokens -= len(dropped)


def _kept_for(row: BatchRow) -> bool:
    return row.ends and row.score_prompt and row.adapter is None


def _score_key(row: BatchRow) -> ScoreKey:
    return tuple(row.prompt), tuple(row.written), row.num_top


def begun(request: GenerationRequest, choices: Sequence[Choice], scores: Sequence[Token]) -> News:
    """What the choices have to say once their prompt is computed."""
    pieces = [choice.begin(scores) for choice in choices]
    return [(request, piece) for piece in pieces if piece is not None]


@dataclass
class Counts:
    """Totals since the start."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    failures: int = 0


class Batcher:
    """Owns the thread and everything that is computed in it."""

    def __init__(self, base: LoadedBase, rows_limit: int) -> None:
        self._base = base
        self._rows_limit = rows_limit
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._waiting: deque[GenerationRequest] = deque()
        self._lanes: dict[Adapter | None, Lane] = {}  # those with rows; changed in the thread only
        self._bell = asyncio.Event()
        self._scores = KeptScores()
        self.counts = Counts()

    @property
    def num_running(self) -> int:
        return sum(map(len, list(self._lanes.values())))

    @property
    def num_waiting(self) -> int:
        return sum(request.num_waiting for request in self._waiting)

    def submit(self, prompts: Sequence[Sequence[Choice]]) -> GenerationRequest:
        """Queues one request: for every prompt the choices that share it. Raises Unavailable when the queue is full."""
        if self.num_waiting >= WAITING_LIMIT:
            raise Unavailable("The engine is currently overloaded, please try again later.")
        request = GenerationRequest(prompts)
        self._waiting.append(request)
        self._bell.set()
        return request

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `function` in the thread, between two turns."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))

    async def run(self) -> None:
        """Generates until it is cancelled."""
        try:
            while True:
                await self._bell.wait()
                for request, news in await self.call(self._turn, self._admit()):
                    request.deliver(news)
                if not self._waiting and not self._lanes:
                    self._bell.clear()
        finally:
            self._thread.shutdown(wait=True)  # a turn in progress ends first
            for request in {*self._waiting}.union(*(lane.requests for lane in self._lanes.values())):
                request.deliver(Unavailable("The engine is shutting down."))

    def _admit(self) -> list[Group]:
        """The choices that join now: requests take turns; while several wait, each gets its share of the free rows.

        One request never has all rows, so that a short one which comes next need not wait for the end of a long one.
        """
        admitted: list[Group] = []
        free, tokens = self._rows_limit - self.num_running, 0
        held = Counter(request for lane in self._lanes.values() for request in lane.rows)
        most = self._rows_limit - self._rows_limit // RESERVED
        skipped = 0  # in a row
        while free > 0 and tokens < PREFILL_TOKENS and skipped < len(self._waiting):
            share = max(1, free // len(self._waiting))
            request = self._waiting.popleft()
            if held[request] >= most:
                self._waiting.append(request)
                skipped += 1
                continue
            skipped = 0
            choices = request.take(min(share, most - held[request]))
            held[request] += len(choices)
            if request.num_waiting:
                self._waiting.append(request)
            if choices:
                admitted.append((request, choices))
                free -= len(choices)
                tokens += len(choices[0].row.prompt)
        return admitted

    def _turn(self, newcomers: list[Group]) -> News:
        """In the thread. An exception of the model ends only the requests that it belongs to."""
        news: News = []
        for lane in self._lanes.values():
            with self._failing(lane, news):
                lane.drop_unwanted()
        by_lane: dict[Adapter | None, list[Group]] = {}
        for group in newcomers:
            by_lane.setdefault(lane_of(group[1][0].row.adapter), []).append(group)
        for owner, groups in by_lane.items():
            self._join(owner, groups, news)
        for lane in self._lanes.values():
            if lane:
                with self._failing(lane, news):
                    self._step(lane, news)
        self._lanes = {adapter: lane for adapter, lane in self._lanes.items() if lane}
        return news

    def _join(self, owner: Adapter | None, groups: Sequence[Group], news: News) -> None:
        """Computes the prompts of one lane together. Where that fails, each by itself: only its own request ends."""
        lane = self._lanes.setdefault(owner, Lane(self._base, owner))
        new = []
        for request, choices in groups:
            if (scores := self._scores.of(choices[0].row)) is None:
                new.append((request, choices))
            else:
                news += begun(request, choices, scores)
        groups = new
        try:
            prefilled = lane.prefill_all([choices for _, choices in groups])
        except Exception as error:  # no other row was touched
            if len(groups) > 1:
                for group in groups:
                    self._join(owner, [group], news)
                return
            news.append((groups[0][0], self._failure(error)))
            return
        for (request, choices), theirs in zip(groups, prefilled, strict=True):
            self.counts.prompt_tokens += len(choices[0].row.prompt)
            self._scores.keep(choices[0].row, theirs.scores)
            if choices[0].row.ends:
                with self._failing(lane, news):
                    news += begun(request, choices, theirs.scores)
        going_on = [place for place, (_, choices) in enumerate(groups) if not choices[0].row.ends]
        if going_on:
            with self._failing(lane, news):
                news += lane.join([groups[place] for place in going_on], [prefilled[place] for place in going_on])

    def _step(self, lane: Lane, news: News) -> None:
        pieces, num_tokens = lane.step()
        self.counts.generated_tokens += num_tokens
        news += pieces

    @contextmanager
    def _failing(self, lane: Lane, news: News) -> Iterator[None]:
        """An exception inside ends the rows of this lane and of no other."""
        try:
            yield
        except Exception as error:
            news += lane.fail(self._failure(error))

    def _failure(self, error: Exception) -> GenerationFailed:
        self.counts.failures += 1
        log.error("generation.failed", exc_info=error)
        return GenerationFailed("The engine failed to generate this response.", code="generation_failed")
