"""Object storage in a local directory: temporary name, fsync, rename, so that a key is whole or absent.

File calls run in threads: a slow disk never stops the event loop.
"""

import asyncio
import errno
import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from service.storage.base import (
    CHUNK_BYTES,
    ObjectExists,
    ObjectMissing,
    StorageError,
    StorageUnusable,
    StoredObject,
    check_key,
)

TEMPORARY = ".incoming"
PROBE_BYTES = 4096
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # what file systems without links return


class LocalStore:
    """An `ObjectStore` under one folder, which is made when it is first needed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def check(self) -> None:
        try:
            await asyncio.to_thread(self._try_writing)
        except OSError as error:
            reason = f"cannot write to {self._root} ({error.strerror})"
            raise StorageUnusable(f"LUTHIER_STORAGE_URL: {reason}.") from error

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, replace: bool = True) -> int:
        target = self._path(key)
        temporary = self._root / TEMPORARY / secrets.token_hex(16)
        try:
            size = await self._write(temporary, chunks)
            await asyncio.to_thread(_publish, temporary, target, replace=replace)
        except FileExistsError as error:
            raise ObjectExists(key) from error
        except OSError as error:
            raise StorageError(f"{key}: {error.strerror}") from error
        finally:
            await asyncio.to_thread(temporary.unlink, missing_ok=True)
        return size

    async def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
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

    async def list(self, prefix: str, after: str = "") -> AsyncGenerator[StoredObject, None]:
        for found in await asyncio.to_thread(lambda: sorted(self._found(prefix, after), key=lambda one: one.key)):
            yield found

    async def download_url(self, key: str, filename: str, life_seconds: int) -> str | None:
        return None

    async def remove_unfinished(self, age_seconds: float) -> int:
        return await asyncio.to_thread(self._remove_unfinished, time.time() - age_seconds)

    async def close(self) -> None:
        return

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root / key

    def _found(self, prefix: str, after: str) -> Iterator[StoredObject]:
        for path in (self._root / prefix.rpartition("/")[0]).rglob("*"):
            key = path.relative_to(self._root).as_posix()
            if not key.startswith(prefix) or key <= after or key.startswith(TEMPORARY):
                continue
            with suppress(FileNotFoundError):  # deleted meanwhile
                if path.is_file():
                    status = path.stat()
                    yield StoredObject(key, status.st_size, status.st_mtime)

    def _remove_unfinished(self, written_before: float) -> int:
        removed = 0
        for path in (self._root / TEMPORARY).glob("*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime <= written_before:
                    path.unlink()
                    removed += 1
        return removed

    def _try_writing(self) -> None:
        probe = self._root / TEMPORARY / secrets.token_hex(16)
        probe.parent.mkdir(parents=True, exist_ok=True)
        try:
            with probe.open("xb") as stream:  # a full disk still takes empty files
                stream.write(bytes(PROBE_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
        finally:
            probe.unlink(missing_ok=True)

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


def _publish(temporary: Path, target: Path, *, replace: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if replace:
        temporary.replace(target)
    else:
        _link(temporary, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)


def _link(temporary: Path, target: Path) -> None:
    """Raises FileExistsError; of two at once, one fails, where the file system has links."""
    try:
        target.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if target.exists():
            raise FileExistsError(target) from error
        temporary.replace(target)
