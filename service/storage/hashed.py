"""Bytes that are counted and hashed while they stream past: on their way into a store, or out of one.

The one place where streams are hashed; a caller compares or keeps what was found. Uses no store and no key.
"""

import hashlib
from collections.abc import AsyncIterator


class Hashed:
    """The chunks of `source`, unchanged; `num_bytes` and `hexdigest` are of those that have passed so far.

    May be iterated once, as `source` may.
    """

    def __init__(self, source: AsyncIterator[bytes], algorithm: str = "sha256") -> None:
        self._source = source
        self._digest = hashlib.new(algorithm, usedforsecurity=False)
        self.num_bytes = 0

    @property
    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def __aiter__(self) -> "Hashed":
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._source)
        self._digest.update(chunk)
        self.num_bytes += len(chunk)
        return chunk

    async def read_to_end(self) -> str:
        """Lets everything pass and keeps nothing of it; returns the digest in hex."""
        async for _ in self:
            pass
        return self.hexdigest
