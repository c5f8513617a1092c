"""The bytes of files and parts, to storage and from it: streamed, counted, hashed.

Uses no rows: what is stored here is an orphan until an operation's transaction names its key.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from service.domain.errors import LuthierError, Unavailable
from service.domain.file import Segment
from service.installation.context import Context
from service.storage import StorageError
from service.storage.base import CHUNK_BYTES
from service.storage.hashed import Hashed

PIECES = 4096  # of a chunk: few enough that what holds them stays small beside their bytes
STORAGE_UNAVAILABLE = "The object storage is not available right now; please try again."


async def store(
    ctx: Context,
    key: str,
    chunks: AsyncIterator[bytes],
    limit_bytes: int,
    too_large: LuthierError,
    look: Callable[[bytes], None] | None = None,
) -> Segment:
    """Streams the bytes to storage. Raises `too_large` at the first byte beyond the limit, or Unavailable.

    `look` sees every byte in order, in a thread, one call at a time.
    """
    bounded = _bounded(chunks, limit_bytes, too_large)
    hashed = Hashed(bounded if look is None else _shown(bounded, look))
    try:
        await ctx.storage.put(key, hashed)
    except StorageError as error:
        raise Unavailable(STORAGE_UNAVAILABLE) from error
    return Segment(key, hashed.num_bytes, hashed.hexdigest)


async def read(ctx: Context, segments: Sequence[Segment]) -> AsyncIterator[bytes]:
    """The bytes in order. Raises Unavailable where storage is unavailable or has lost some."""
    try:
        for segment in segments:
            async for chunk in ctx.storage.open(segment.key):
                yield chunk
    except StorageError as error:
        raise Unavailable(STORAGE_UNAVAILABLE) from error


async def _shown(source: AsyncIterator[bytes], look: Callable[[bytes], None]) -> AsyncIterator[bytes]:
    async for chunk in source:
        await asyncio.to_thread(look, chunk)
        yield chunk


async def _bounded(source: AsyncIterator[bytes], limit_bytes: int, too_large: LuthierError) -> AsyncIterator[bytes]:
    """Chunks of even size: small ones are merged, so that storage gets few."""
    gathered: list[bytes] = []
    num_bytes = num_gathered = 0
    async for chunk in source:
        num_bytes += len(chunk)
        if num_bytes > limit_bytes:
            raise too_large
        gathered.append(chunk)
        num_gathered += len(chunk)
        if len(gathered) == PIECES:
            gathered = [b"".join(gathered)]
        if num_gathered >= CHUNK_BYTES:
            yield b"".join(gathered)
            gathered, num_gathered = [], 0
    if num_gathered:
        yield b"".join(gathered)
