"""Rows that go through one model together: a batch and whose choice each of its rows is.

The base's lane holds the rows of the base and of all adapters that mix. An adapter that does not mix, such as one with
a private copy of the base, has a lane of its own while it has rows. Driven by `batcher`, in its thread.
"""

from collections.abc import Iterable, Sequence

from service.domain.errors import LuthierError
from workers.engines.embedded.choice import Choice, Piece
from workers.engines.embedded.request import Exchange
from workers.model.adapters import Adapter
from workers.model.generate import Batch, Prefilled
from workers.model.load import LoadedBase

News = list[tuple[Exchange, Piece | LuthierError]]


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
