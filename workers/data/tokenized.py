"""Tokenised rows, flat: what validation writes once and every trainer reads.

Knows numbers only. N rows, T tokens of all rows together. An example is what a step counts: one row, or the rows of a
pair, which stand next to each other.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file


@dataclass(frozen=True)
class TokenizedDataset:
    """Row i is `tokens[offsets[i]:offsets[i + 1]]`; `trained` says on which of its tokens the loss falls (0 or 1)."""

    tokens: NDArray[np.int32]  # T
    trained: NDArray[np.uint8]  # T
    offsets: NDArray[np.int64]  # N + 1
    rows_per_example: int = 1  # example k is the rows from k * rows_per_example on

    def __post_init__(self) -> None:
        whole = self.offsets[0] == 0 and self.offsets[-1] == len(self.tokens) == len(self.trained)
        if not whole or np.any(np.diff(self.offsets) <= 0):
            raise ValueError("the offsets do not fit the tokens")
        if len(self) % self.rows_per_example:
            raise ValueError("the last example lacks rows")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Tokens and trained flags of one row."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        span = slice(self.offsets[index], self.offsets[index + 1])
        return self.tokens[span], self.trained[span]

    @property
    def num_examples(self) -> int:
        return len(self) // self.rows_per_example

    def rows_of(self, examples: Iterable[int]) -> list[int]:
        """The rows of these examples, in their order."""
        return [example * self.rows_per_example + row for example in examples for row in range(self.rows_per_example)]

    def length(self, example: int) -> int:
        """Tokens of the example's longest row."""
        begin = example * self.rows_per_example
        return int(np.diff(self.offsets[begin : begin + self.rows_per_example + 1]).max())

    def cost_tokens(self, examples: Iterable[int]) -> int:
        """All tokens of these examples' rows."""
        return sum(int(self.offsets[row + 1] - self.offsets[row]) for row in self.rows_of(examples))

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_trained_tokens(self) -> int:
        return int(self.trained.sum(dtype=np.int64))

    def save(self, path: Path) -> None:
        """Writes one safetensors file."""
        arrays: dict[str, NDArray[Any]] = {
            "tokens": self.tokens,
            "trained": self.trained,
            "offsets": self.offsets,
            "rows_per_example": np.array([self.rows_per_example], dtype=np.int64),
        }
        save_file(arrays, path)

    @classmethod
    def load(cls, path: Path) -> "TokenizedDataset":
        """Reads what `save` wrote. Raises ValueError or KeyError for another file."""
        arrays = load_file(path)
        (rows_per_example,) = arrays.get("rows_per_example", [1])  # files of 0.1.0 have no such array
        return cls(arrays["tokens"], arrays["trained"], arrays["offsets"], int(rows_per_example))
