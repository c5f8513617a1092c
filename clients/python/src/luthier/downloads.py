"""The bytes of a response, streamed. A file is complete or missing: it gets its name when its last byte is there."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Optional, Union

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
        """Writes a file beside `path` and gives it its name at the end."""
        target, part = _names(path)
        with part.open("wb") as file:
            for chunk in self.iter_bytes():
                file.write(chunk)
        return part.replace(target)

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
        target, part = _names(path)
        with part.open("wb") as file:
            async for chunk in self.iter_bytes():
                file.write(chunk)
        return part.replace(target)

    async def close(self) -> None:
        await self.response.aclose()

    async def __aenter__(self) -> "AsyncDownload":
        return self

    async def __aexit__(
        self, kind: Optional[type], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()


def _names(path: "Union[str, os.PathLike[str]]") -> tuple[Path, Path]:
    target = Path(path)
    return target, target.with_name(f".{target.name}.part")
