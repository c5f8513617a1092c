"""The bytes of files and parts on their way into storage and out again: streamed, counted, hashed.

Knows no row: what is stored here is nobody's until an operation's transaction names its key.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence

from service.domain.errors import LuthierError, Unavailable
from service.domain.file import Segment
from service.installation.context import Context
from service.storage import StorageError
from service.storage.base import CHUNK_BYTES

STORAGE_AWAY = "The object storage is not available right now; please try again."


async def store(
    ctx: Context, key: str, chunks: AsyncIterator[bytes], limit_bytes: int, too_large: LuthierError
) -> Segment:
    """Streams the bytes to storage. Raises `too_large` at the first byte beyond the limit, or Unavailable."""
    counted = _Counted(chunks, limit_bytes, too_large)
    try:
        await ctx.storage.put(key, counted.chunks())
    except StorageError as error:
        raise Unavailable(STORAGE_AWAY) from error
    return Segment(key, counted.size, counted.sha256)


async def read(ctx: Context, segments: Sequence[Segment]) -> AsyncIterator[bytes]:
    """The bytes in order. Raises Unavailable where storage is away or has lost some."""
    try:
        for segment in segments:
            async for chunk in ctx.storage.open(segment.key):
                yield chunk
    except StorageError as error:
        raise Unavailable(STORAGE_AWAY) from error


class _Counted:
    """Chunks of even size, counted and hashed on their way; small ones are gathered so that storage writes few."""

    def __init__(self, chunks: AsyncIterator[bytes], limit_bytes: int, too_large: LuthierError) -> None:
        self._source = chunks
        self._limit_bytes = limit_bytes
        self._too_large = too_large
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    async def chunks(self) -> AsyncIterator[bytes]:
        gathered = bytearray()
        async for chunk in self._source:
            self._count(chunk)
            gathered += chunk
            if len(gathered) >= CHUNK_BYTES:
                yield bytes(gathered)
                gathered.clear()
        if gathered:
            yield bytes(gathered)

    def _count(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self._limit_bytes:
            raise self._too_large
        self._hash.update(chunk)
