"""The port of object storage: what the service needs from any store, local or S3-compatible.

Keys are write-once and chosen by the caller (`files/...`, `jobs/...`, `adapters/...`); sizes and hashes are kept in the
database, never in the store. Does not depend on files, jobs or models.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol

CHUNK_BYTES = 1024 * 1024
_SEGMENT = re.compile(r"[A-Za-z0-9%._:=@-]+")


class StorageError(Exception):
    """The store is unavailable, full or refuses; a retry may help."""


class ObjectMissing(StorageError):
    """No object has this key."""


class ObjectExists(StorageError):
    """An object has this key already, and was not to be replaced."""


class StorageUnusable(StorageError):
    """The store cannot be used as it is configured; the message begins with the setting to correct."""


@dataclass(frozen=True)
class StoredObject:
    """An object in a store; `modified_at` is in seconds since 1970, by the store's clock."""

    key: str
    bytes: int
    modified_at: float


class ObjectStore(Protocol):
    """Bytes under keys. Every method may raise StorageError; none waits without a timeout."""

    async def check(self) -> None:
        """Checks whether the store can be used as it is configured. Raises StorageUnusable."""
        ...

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, replace: bool = True) -> int:
        """Stores the chunks and returns their size; nothing is visible under `key` before the last byte is safe.

        Replaces what was there, or raises ObjectExists where it shall not. When the iterator raises or this is
        cancelled, nothing is left behind; after a StorageError the object may exist, but only whole.
        """
        ...

    def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Chunks of at most CHUNK_BYTES of the bytes from `start` to `end` (exclusive). Raises ObjectMissing.

        Ends without an error only after the last of these bytes.
        """
        ...

    async def size(self, key: str) -> int:
        """Bytes of the object. Raises ObjectMissing."""
        ...

    async def delete(self, key: str) -> None:
        """Deletes the object; does nothing if it is missing."""
        ...

    def list(self, prefix: str, after: str = "") -> AsyncGenerator[StoredObject, None]:
        """What has a key that begins with `prefix` and is greater than `after`, in the order of keys."""
        ...

    async def download_url(self, key: str, filename: str, life_seconds: int) -> str | None:
        """Where a client may fetch the object without a key for a while; None for a store without HTTP."""
        ...

    async def remove_unfinished(self, age_seconds: float) -> int:
        """Removes some leftovers of puts that were killed longer ago than this; returns how many."""
        ...

    async def close(self) -> None:
        """Ends connections and threads, and what a cancelled put still has to clean up. The last call."""
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
