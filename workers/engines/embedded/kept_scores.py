"""The base's log-probabilities of prompts that were scored, kept for whoever asks for the same ones.

Workers compare every new model with its base on rows of the job's file, so jobs on one file ask for the base's scores
of the same rows each time. Of the base alone: a model is mostly scored once. The longest unused are dropped.
"""

from collections import OrderedDict
from collections.abc import Sequence

from workers.model.generate import Row
from workers.model.sampling import Token

LIMIT_TOKENS = 32_768

Key = tuple[tuple[int, ...], tuple[int, ...], int | None]


class KeptScores:
    """Scores of prompts, of `limit_tokens` together at most. Used in the engine's thread."""

    def __init__(self, limit_tokens: int = LIMIT_TOKENS) -> None:
        self._limit_tokens = limit_tokens
        self._num_tokens = 0
        self._kept: OrderedDict[Key, Sequence[Token]] = OrderedDict()

    def of(self, row: Row) -> Sequence[Token] | None:
        """What the row asks for, where that is kept."""
        if not _kept_for(row) or (key := _key(row)) not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def keep(self, row: Row, scores: Sequence[Token]) -> None:
        """Keeps what was computed for the row, if that may be asked for again."""
        if not _kept_for(row) or (key := _key(row)) in self._kept:
            return
        self._kept[key] = scores
        self._num_tokens += len(scores)
        while self._num_tokens > self._limit_tokens:
            _, dropped = self._kept.popitem(last=False)
            self._num_tokens -= len(dropped)


def _kept_for(row: Row) -> bool:
    return row.ends and row.score_prompt and row.adapter is None


def _key(row: Row) -> Key:
    return tuple(row.prompt), tuple(row.written), row.num_top
