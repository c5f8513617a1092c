"""Sends requests and sends them again; from responses come objects, pages, streams or exceptions.

The generated operations call it and know no HTTP. `Transport` and `AsyncTransport` are the same, line by line.
"""

import asyncio
import time
from dataclasses import replace
from typing import Any, Optional, TypeVar, Union

import httpx

from luthier.downloads import AsyncDownload, Download
from luthier.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APITimeoutError,
    status_error,
)
from luthier.pages import AsyncPage, AsyncPages, Page
from luthier.records import JsonObject, MismatchError, Record, read
from luthier.requests import Request, build, close, idempotency_key, opened
from luthier.retries import delay_seconds, may_retry
from luthier.streams import AsyncStream, Read, Stream

R = TypeVar("R", bound=Record)
T = TypeVar("T")


class Transport:
    """One service and one key."""

    def __init__(self, client: httpx.Client, url: str, max_retries: int) -> None:
        self.client = client
        self.url = url  # without /v1
        self.max_retries = max_retries

    def object(self, kind: type[R], request: Request) -> R:
        """The response as `kind`."""
        return _read(kind, self._send(request))

    def json(self, request: Request) -> Any:
        """The response as it is, where the document gives it no shape."""
        return _json(self._send(request))

    def text(self, request: Request) -> str:
        return self._send(request).text

    def nothing(self, request: Request) -> None:
        self._send(request)

    def page(self, kind: type[R], request: Request) -> Page[R]:
        """The response as a page of `kind`, which can request the next one."""
        data, has_more = _page(kind, self._send(request))
        return Page(data, has_more, lambda after: self.page(kind, _after(request, after)))

    def stream(self, read: Read[T], request: Request, *, marked: bool = True) -> Stream[T]:
        """The response as a stream that has begun; `marked`: it ends with `[DONE]`."""
        return Stream(self._send(request, stream=True), read, marked=marked)

    def download(self, request: Request) -> Download:
        return Download(self._send(request, stream=True))

    def _send(self, request: Request, *, stream: bool = False) -> httpx.Response:
        ready = opened(request)
        try:
            return self._tries(ready, stream)
        finally:
            close(request, ready)

    def _tries(self, request: Request, stream: bool) -> httpx.Response:
        key, failures = idempotency_key(), 0
        while True:
            last = failures >= self.max_retries
            response: Optional[httpx.Response] = None
            try:
                built = build(self.client, request, self.url + request.path, key)
                response = self.client.send(built, stream=stream, follow_redirects=True)
                if not response.is_success:
                    response.read()
            except httpx.RequestError as error:
                if last:
                    raise unreachable(error, self.url) from error
            if response is not None:
                if response.is_success:
                    return response
                if last or not may_retry(response.status_code, response.headers):
                    raise status_error(response)
            failures += 1
            time.sleep(delay_seconds(failures, response.headers if response is not None else None))


class AsyncTransport:
    """`Transport` for asyncio."""

    def __init__(self, client: httpx.AsyncClient, url: str, max_retries: int) -> None:
        self.client = client
        self.url = url
        self.max_retries = max_retries

    async def object(self, kind: type[R], request: Request) -> R:
        return _read(kind, await self._send(request))

    async def json(self, request: Request) -> Any:
        return _json(await self._send(request))

    async def text(self, request: Request) -> str:
        return (await self._send(request)).text

    async def nothing(self, request: Request) -> None:
        await self._send(request)

    def page(self, kind: type[R], request: Request) -> AsyncPages[R]:
        return AsyncPages(lambda: self._page(kind, request))

    async def _page(self, kind: type[R], request: Request) -> AsyncPage[R]:
        data, has_more = _page(kind, await self._send(request))
        return AsyncPage(data, has_more, lambda after: self._page(kind, _after(request, after)))

    async def stream(self, read: Read[T], request: Request, *, marked: bool = True) -> AsyncStream[T]:
        return AsyncStream(await self._send(request, stream=True), read, marked=marked)

    async def download(self, request: Request) -> AsyncDownload:
        return AsyncDownload(await self._send(request, stream=True))

    async def _send(self, request: Request, *, stream: bool = False) -> httpx.Response:
        ready = opened(request)
        try:
            return await self._tries(ready, stream)
        finally:
            close(request, ready)

    async def _tries(self, request: Request, stream: bool) -> httpx.Response:
        key, failures = idempotency_key(), 0
        while True:
            last = failures >= self.max_retries
            response: Optional[httpx.Response] = None
            try:
                built = build(self.client, request, self.url + request.path, key)
                response = await self.client.send(built, stream=stream, follow_redirects=True)
                if not response.is_success:
                    await response.aread()
            except httpx.RequestError as error:
                if last:
                    raise unreachable(error, self.url) from error
            if response is not None:
                if response.is_success:
                    return response
                if last or not may_retry(response.status_code, response.headers):
                    raise status_error(response)
            failures += 1
            await asyncio.sleep(delay_seconds(failures, response.headers if response is not None else None))


AnyTransport = Union[Transport, AsyncTransport]


def unreachable(error: httpx.RequestError, url: str) -> APIConnectionError:
    """The exception for a request without a response."""
    try:
        request: Optional[httpx.Request] = error.request
    except RuntimeError:
        request = None
    if isinstance(error, httpx.TimeoutException):
        return APITimeoutError(f"The service at {url} did not respond in time.", request=request)
    if not isinstance(error, httpx.TransportError):
        return APIConnectionError(f"The response of the service at {url} cannot be read: {error}.", request=request)
    return APIConnectionError(
        f"The service at {url} cannot be reached: {error or type(error).__name__}.", request=request
    )


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise APIResponseValidationError(
            "The response is not JSON. Is the URL that of a Luthier service?", request=response.request
        ) from None


def _read(kind: type[R], response: httpx.Response) -> R:
    value = _json(response)
    try:
        return read(kind, value)
    except MismatchError as mismatch:
        raise _mismatched(mismatch, response, value) from None


def _page(kind: type[R], response: httpx.Response) -> tuple[list[R], bool]:
    value = _json(response)
    try:
        if not isinstance(value, dict) or not isinstance(value.get("data"), list):
            raise MismatchError("expected an object with a list `data`")
        return [read(kind, one) for one in value["data"]], bool(value.get("has_more", False))
    except MismatchError as mismatch:
        raise _mismatched(mismatch, response, value) from None


def _mismatched(mismatch: MismatchError, response: httpx.Response, body: Any) -> APIError:
    message = f"The response is not of the documented shape ({mismatch}). Update luthier-client or the service."
    return APIResponseValidationError(message, request=response.request, body=body)


def _after(request: Request, after: str) -> Request:
    query: JsonObject = {**request.query, "after": after}
    return replace(request, query=query)
