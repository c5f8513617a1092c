"""Storing and fetching single files, hashed while they are streamed.

Imports only `service.storage`, because vLLM's environment uses it too. Nothing is retried here: callers that can wait
wrap these in `storage_retry`.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from tenacity import retry, retry_if_exception, stop_after_delay, wait_random_exponential

from service.storage.base import CHUNK_BYTES, ObjectExists, ObjectMissing, ObjectStore, StorageError
from service.storage.hashed import Hashed

RETRY_SECONDS = 120


class ObjectCorrupt(Exception):
    """Bytes in storage are not the ones that were stored."""


def _is_temporary(error: BaseException) -> bool:
    return isinstance(error, StorageError) and not isinstance(error, ObjectMissing | ObjectExists)


storage_retry = retry(
    retry=retry_if_exception(_is_temporary),
    wait=wait_random_exponential(multiplier=0.2, max=10),
    stop=stop_after_delay(RETRY_SECONDS),
    reraise=True,
)


async def store_file(store: ObjectStore, path: Path, key: str) -> str:
    """Stores one file; returns its sha256. Raises StorageError."""
    chunks = Hashed(_chunks(path))
    await store.put(key, chunks)
    return chunks.hexdigest


async def fetch_file(store: ObjectStore, key: str, path: Path) -> str:
    """Fetches one object into `path`; returns its sha256. Raises ObjectMissing, StorageError, OSError."""
    chunks = Hashed(store.open(key))
    with await asyncio.to_thread(path.open, "wb") as stream:
        async for chunk in chunks:
            await asyncio.to_thread(stream.write, chunk)
    return chunks.hexdigest


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as stream:
        while chunk := await asyncio.to_thread(stream.read, CHUNK_BYTES):
            yield chunk
