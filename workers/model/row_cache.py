"""Keys and values of rows that are decoded together: rows join, and every token is written into room left for it.

`DynamicCache` of transformers copies all positions of all rows for every token. Here a layer has room for the next,
and copies when that is used up. Does not depend on requests, text or how tokens are drawn; `workers.model.generate` has
the rows. Shapes: B rows, N some of them, A heads, S cached positions of the longest row, D width of a head.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # positions that are allocated at a time


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """As `DynamicLayer`, of which `keys` and `values` may be replaced between two calls of `update`."""

    def __init__(self, keys_BASD: Tensor, values_BASD: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys_BASD, values_BASD)
        self.keys, self.values = keys_BASD, values_BASD
        self._keys, self._values = Growing(), Growing()

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """All keys and values, with these after those before."""
        assert self.keys is not None and self.values is not None
        self.keys = self._keys.append(self.keys, key_states)
        self.values = self._values.append(self.values, value_states)
        return self.keys, self.values


class Growing:
    """One tensor that grows in its second to last dimension."""

    def __init__(self) -> None:
        self._whole = torch.empty(0)
        self._used: Tensor | None = None  # the part of it that was returned

    def append(self, before: Tensor, more: Tensor) -> Tensor:
        """`before` and `more`; what was returned before must not be used any more."""
        size, added = before.shape[-2], more.shape[-2]
        if before is not self._used or size + added > self._whole.shape[-2]:
            self._whole = before.new_empty((*before.shape[:-2], size + added + ROOM, before.shape[-1]))
            self._whole.narrow(-2, 0, size).copy_(before)
        self._whole.narrow(-2, size, added).copy_(more)
        self._used = self._whole.narrow(-2, 0, size + added)
        return self._used


def cache_of(layers: Sequence[tuple[Tensor, Tensor]]) -> DynamicCache:
    """A cache with room, of keys and values of each layer, which are not copied."""
    cache = DynamicCache()
    cache.layers.extend(RoomyLayer(keys, values) for keys, values in layers)
    return cache


def joined(caches: Sequence[DynamicCache]) -> DynamicCache:
    """The rows of all; the shorter ones are padded on the left with zeros, which must be masked."""
    if len(caches) == 1:
        return cache_of(list(states(caches[0])))
    size = max(cache.get_seq_length() for cache in caches)
    layers = zip(*(states(cache) for cache in caches), strict=True)
    return cache_of([(_padded([keys for keys, _ in parts], size), _padded([values for _, values in parts], size))
                     for parts in layers])  # fmt: skip


def _padded(parts: Sequence[Tensor], size: int) -> Tensor:
    """Keys or values of all rows of all parts, at the end of `size` positions."""
    rows = [len(part) for part in parts]
    _, heads, _, width = parts[0].shape
    all_BASD = parts[0].new_zeros(sum(rows), heads, size, width)
    for part, place in zip(parts, torch.split(all_BASD, rows), strict=True):
        place[:, :, size - part.shape[2] :].copy_(part)
    return all_BASD


def keep_rows(cache: DynamicCache, rows_N: Tensor, longest: int) -> None:
    """Drops all other rows, and all but the last `longest` positions."""
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        keys, values = _states(layer)
        layer.keys = keys.index_select(0, rows_N)[:, :, -longest:]
        layer.values = values.index_select(0, rows_N)[:, :, -longest:]


def states(cache: DynamicCache) -> Iterator[tuple[Tensor, Tensor]]:
    """Keys and values of every layer. A cache made without a config keeps all positions in every layer."""
    return map(_states, cache.layers)


def _states(layer: object) -> tuple[Tensor, Tensor]:
    assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
    return layer.keys, layer.values
