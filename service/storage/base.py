"""The port of object storage: what the service asks of any store, local or S3-compatible.

Keys are write-once and chosen by the caller (`files/...`, `jobs/...`, `adapters/...`); sizes and hashes are kept in the
database, never in the store. Knows nothing of files, jobs or models.
"""

import re
from collections.abc import AsyncIterator
from typing import Protocol

CHUNK_BYTES = 1024 * 1024
_SEGMENT = re.compile(r"[A-Za-z0-9%._:=@-]+")


class StorageError(Exception):
    """The store is away, full or refuses; trying again may help."""


class ObjectMissing(StorageError):
    """No object has this key."""


class ObjectStore(Protocol):
    """Bytes under keys. Every method may raise StorageError."""

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        """Stores the chunks and answers their size; nothing is visible under `key` before the last byte is safe.

        Replaces what was there. When the iterator raises, nothing stays behind.
        """
        ...

    def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Chunks of at most CHUNK_BYTES of the bytes from `start` to `end` (exclusive). Raises ObjectMissing."""
        ...

    async def size(self, key: str) -> int:
        """Bytes of the object. Raises ObjectMissing."""
        ...

    async def delete(self, key: str) -> None:
        """Removes the object; one that is not there is fine."""
        ...

    def list(self, prefix: str) -> AsyncIterator[str]:
        """Keys that begin with `prefix`, in no promised order."""
        ...


def check_key(key: str) -> None:
    """Raises ValueError unless `key` is made of safe segments: no `..`, no absolute or empty segment."""
    for segment in key.split("/"):
        if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
            raise ValueError(f"not a storage key: {key!r}")


async def read(store: ObjectStore, key: str) -> bytes:
    """The whole object at once: for small ones, such as manifests."""
    return b"".join([chunk async for chunk in store.open(key)])


async def one_chunk(content: bytes) -> AsyncIterator[bytes]:
    """`content` as the chunks that `put` takes."""
    yield content
