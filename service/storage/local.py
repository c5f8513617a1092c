"""Object storage in a local directory: temporary name, fsync, rename, so that a key is whole or absent.

File calls run in threads: a slow disk never stops the event loop.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import BinaryIO

from service.storage.base import CHUNK_BYTES, ObjectMissing, StorageError, check_key

TEMPORARY = ".incoming"


class LocalStore:
    """An `ObjectStore` under one folder, which is made when it is first needed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        target = self._path(key)
        temporary = self._root / TEMPORARY / secrets.token_hex(16)
        try:
            size = await self._write(temporary, chunks)
            await asyncio.to_thread(_publish, temporary, target)
        except OSError as error:
            raise StorageError(f"{key}: {error.strerror}") from error
        finally:
            await asyncio.to_thread(temporary.unlink, missing_ok=True)
        return size

    async def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        path = self._path(key)
        try:
            stream: BinaryIO = await asyncio.to_thread(path.open, "rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise ObjectMissing(key) from error
        except OSError as error:
            raise StorageError(f"{key}: {error.strerror}") from error
        with stream:
            stream.seek(start)
            left = None if end is None else end - start
            while left is None or left > 0:
                wanted = CHUNK_BYTES if left is None else min(left, CHUNK_BYTES)
                chunk = await asyncio.to_thread(stream.read, wanted)
                if not chunk:
                    return
                left = None if left is None else left - len(chunk)
                yield chunk

    async def size(self, key: str) -> int:
        try:
            return (await asyncio.to_thread(self._path(key).stat)).st_size
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ObjectMissing(key) from error
        except OSError as error:
            raise StorageError(f"{key}: {error.strerror}") from error

    async def delete(self, key: str) -> None:
        try:
            await asyncio.to_thread(self._path(key).unlink, missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise StorageError(f"{key}: {error.strerror}") from error

    async def list(self, prefix: str) -> AsyncIterator[str]:
        for key in await asyncio.to_thread(self._keys, prefix):
            yield key

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root / key

    def _keys(self, prefix: str) -> Sequence[str]:
        folder = self._root / prefix.rpartition("/")[0]
        paths = (path for path in folder.rglob("*") if path.is_file())
        keys = (path.relative_to(self._root).as_posix() for path in paths)
        return [key for key in keys if key.startswith(prefix) and not key.startswith(TEMPORARY)]

    async def _write(self, temporary: Path, chunks: AsyncIterator[bytes]) -> int:
        await asyncio.to_thread(temporary.parent.mkdir, parents=True, exist_ok=True)
        size = 0
        with await asyncio.to_thread(temporary.open, "xb") as stream:
            async for chunk in chunks:
                size += len(chunk)
                await asyncio.to_thread(stream.write, chunk)
            stream.flush()
            await asyncio.to_thread(os.fsync, stream.fileno())
        return size


def _publish(temporary: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)
