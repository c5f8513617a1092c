"""The bytes of a response, streamed. A file is complete or missing: it gets its name when its last byte is there."""

import errno
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Optional, Union

import httpx

from luthier.errors import APIConnectionError

CUT = "The download broke off before its end. Ask again."


class Download:
    """A download that has begun. Reading it to its end, or leaving it as a context manager, ends the request."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response

    def iter_bytes(self) -> Iterator[bytes]:
        try:
            yield from self.response.iter_bytes()
        except httpx.HTTPError as error:
            raise APIConnectionError(CUT, request=self.response.request) from error
        finally:
            self.close()

    def read(self) -> bytes:
        return b"".join(self.iter_bytes())

    def write_to_file(self, path: "Union[str, os.PathLike[str]]") -> Path:
        """Writes a file beside `path`, which gets its name at the end and replaces a file that had it.

        Raises OSError, before the first byte is fetched where `path` is no file.
        """
        with self, _written(Path(path)) as file:
            for chunk in self.iter_bytes():
                file.write(chunk)
        return Path(path)

    def close(self) -> None:
        self.response.close()

    def __enter__(self) -> "Download":
        return self

    def __exit__(self, kind: Optional[type], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()


class AsyncDownload:
    """`Download` for asyncio."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self.response.aiter_bytes():
                yield chunk
        except httpx.HTTPError as error:
            raise APIConnectionError(CUT, request=self.response.request) from error
        finally:
            await self.close()

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.iter_bytes()])

    async def write_to_file(self, path: "Union[str, os.PathLike[str]]") -> Path:
        async with self:
            with _written(Path(path)) as file:
                async for chunk in self.iter_bytes():
                    file.write(chunk)
        return Path(path)

    async def close(self) -> None:
        await self.response.aclose()

    async def __aenter__(self) -> "AsyncDownload":
        return self

    async def __aexit__(
        self, kind: Optional[type], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()


@contextmanager
def _written(target: Path) -> Iterator[IO[bytes]]:
    """A file beside `target`, which is `target` when the block has ended, and nothing where it has failed."""
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "Not a file whose content can be replaced", str(target))
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        part.unlink(missing_ok=True)


def check_free(targets: "Iterable[Path]") -> None:
    """Raises FileExistsError for the first that exists: what the service calls a file replaces none unasked."""
    for target in targets:
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
