"""Tokenised rows, flat: what validation writes once and every trainer reads.

Knows numbers only. N rows, T tokens of all rows together.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file


@dataclass(frozen=True)
class TokenizedDataset:
    """Row i is `tokens[offsets[i]:offsets[i + 1]]`; `trained` says on which of its tokens the loss falls (0 or 1)."""

    tokens: NDArray[np.int32]  # T
    trained: NDArray[np.uint8]  # T
    offsets: NDArray[np.int64]  # N + 1

    def __post_init__(self) -> None:
        whole = self.offsets[0] == 0 and self.offsets[-1] == len(self.tokens) == len(self.trained)
        if not whole or np.any(np.diff(self.offsets) <= 0):
            raise ValueError("the offsets do not fit the tokens")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Tokens and trained flags of one row."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        span = slice(self.offsets[index], self.offsets[index + 1])
        return self.tokens[span], self.trained[span]

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_trained_tokens(self) -> int:
        return int(self.trained.sum(dtype=np.int64))

    def save(self, path: Path) -> None:
        """Writes one safetensors file."""
        save_file({"tokens": self.tokens, "trained": self.trained, "offsets": self.offsets}, path)

    @classmethod
    def load(cls, path: Path) -> "TokenizedDataset":
        """Reads what `save` wrote. Raises ValueError or KeyError for another file."""
        arrays = load_file(path)
        return cls(arrays["tokens"], arrays["trained"], arrays["offsets"])
