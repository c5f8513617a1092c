"""What a base computed for some rows, kept for the next job that has the same ones.

Jobs on one file, as of a search for good settings or of a pipeline that trains daily, are announced by the same rows,
and without a tuning a base gives them the same numbers each time. Kept are the states before the output layer, which
are small; the layer is applied again. The longest unused are dropped.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

LIMIT_BYTES = 64 * 1024 * 1024


class KeptStates:
    """states_KH of groups of rows, `limit_bytes` at most."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    @property
    def num_bytes(self) -> int:
        return sum(states_KH.nbytes for states_KH in self._kept.values())

    def of(self, rows: Sequence[Sequence[int]], compute: Callable[[], Tensor]) -> Tensor:
        """The states of these rows in one pass, which no caller changes; `compute` is called where they are unknown.

        The number of threads decides last bits, so states of another number are not taken.
        """
        key = _key(rows)
        states_KH = self._kept.pop(key, None)
        if states_KH is None:
            states_KH = compute()
        self._kept[key] = states_KH
        while len(self._kept) > 1 and self.num_bytes > self._limit_bytes:
            self._kept.popitem(last=False)
        return states_KH


def _key(rows: Sequence[Sequence[int]]) -> bytes:
    found = hashlib.sha256(np.array([torch.get_num_threads(), *map(len, rows)], dtype=np.int64).tobytes())
    for row in rows:
        found.update(np.array(row, dtype=np.int64).tobytes())
    return found.digest()
