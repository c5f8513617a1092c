"""Server-sent events (WHATWG HTML, 9.2.6), read from a response that is open; each event's data is JSON.

Most streams end with `data: [DONE]`; such a one that ends otherwise is cut. One that holds `{"error": ...}` has failed.
Both raise. Lines end with LF, CR or CRLF and with nothing else: JSON may hold U+2028 as it is.
"""

import json
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Generic, Optional, TypeVar

import httpx

from luthier.errors import APIConnectionError, APIError, APIResponseValidationError, APITimeoutError
from luthier.records import MismatchError

T = TypeVar("T")
Read = Callable[[Any], T]
BROKEN_OFF = "The stream broke off before its end. Ask again, or follow from the last event."


class Events:
    """Takes bytes and gives the data of each event that they complete. `last_id` is the last event's id."""

    def __init__(self) -> None:
        self.last_id: Optional[str] = None
        self._rest = b""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[str]:
        text = self._rest + chunk
        held = b"\r" if text.endswith(b"\r") else b""  # a LF may follow
        lines = text[: len(text) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + held
        for line in lines:
            data = self._line(line.decode("utf-8", "replace"))
            if data is not None:
                yield data

    def _line(self, line: str) -> Optional[str]:
        if not line:
            data, self._data = self._data, []
            return "\n".join(data) if data else None
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self.last_id = value
        return None


class _Reader(Generic[T]):
    """What both streams share: from data to objects, and how they end."""

    def __init__(self, response: httpx.Response, read: Read[T], *, marked: bool = True) -> None:
        self.response = response
        self.marked = marked  # whether `[DONE]` is the end; otherwise it is that of the response
        self.ended = False
        self.on_chunk: Callable[[], object] = lambda: None  # called when bytes come, a heartbeat's too; it may raise
        self._read = read
        self._events = Events()

    @property
    def last_event_id(self) -> Optional[str]:
        """The id of the last event, with which a job's events can be followed further."""
        return self._events.last_id

    def _objects(self, chunk: bytes) -> Generator[T, None, None]:
        for data in self._events.feed(chunk):
            if data == "[DONE]":
                self.ended = True
                return
            yield self._object(data)

    def _object(self, data: str) -> T:
        request = self.response.request
        try:
            value = json.loads(data)
        except ValueError:
            raise APIResponseValidationError("An event of the stream is not JSON.", request=request) from None
        if isinstance(value, dict) and value.get("error"):
            error = value["error"]
            said = error.get("message") if isinstance(error, dict) else error
            raise APIError(str(said), request=request, body=value)
        try:
            return self._read(value)
        except MismatchError as mismatch:
            raise APIResponseValidationError(str(mismatch), request=request, body=value) from None

    def _cut(self, error: Optional[httpx.HTTPError] = None) -> APIConnectionError:
        if isinstance(error, httpx.TimeoutException):
            return APITimeoutError("The stream was silent for too long.", request=self.response.request)
        return APIConnectionError(BROKEN_OFF, request=self.response.request)


class Stream(_Reader[T]):
    """Objects as they come. Ends the request when it is closed, or left as a context manager."""

    def __iter__(self) -> Iterator[T]:
        try:
            for chunk in self.response.iter_bytes():
                self.on_chunk()
                yield from self._objects(chunk)
                if self.ended:
                    return
        except httpx.HTTPError as error:
            raise self._cut(error) from error
        finally:
            self.close()
        if self.marked:
            raise self._cut()

    def close(self) -> None:
        self.response.close()

    def __enter__(self) -> "Stream[T]":
        return self

    def __exit__(self, kind: Optional[type], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()


class AsyncStream(_Reader[T]):
    """`Stream` for asyncio."""

    async def __aiter__(self) -> AsyncIterator[T]:
        try:
            async for chunk in self.response.aiter_bytes():
                self.on_chunk()
                for one in self._objects(chunk):
                    yield one
                if self.ended:
                    return
        except httpx.HTTPError as error:
            raise self._cut(error) from error
        finally:
            await self.close()
        if self.marked:
            raise self._cut()

    async def close(self) -> None:
        await self.response.aclose()

    async def __aenter__(self) -> "AsyncStream[T]":
        return self

    async def __aexit__(
        self, kind: Optional[type], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()
