"""HTTP to the engines: one session per process, and aiohttp's errors as ours.

Between `forward` (what is sent and received) and the wire. Does not use models, fields or the content of responses;
bytes are never decoded, decompressed or split into lines here.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import aiohttp

from service.domain.errors import Unavailable

CONNECT_SECONDS = 2.0
HEALTH_SECONDS = 1.0
KEEPALIVE_SECONDS = 4.0  # far below engines' `idle_seconds`; a host that has vanished is noticed by connecting to it
CONNECTION_LIMIT = 4096
HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


class EngineDown(Exception):
    """The URL accepts no connections. Nothing was sent: another replica may be tried."""


class EngineClient:
    """The shared session, opened by the first request; `silence_seconds` bounds every wait for an engine."""

    def __init__(self, silence_seconds: float, headers: Callable[[], Mapping[str, str]]) -> None:
        """`headers` are asked for once, when the session opens: they prove to an engine who calls."""
        self._silence_seconds = silence_seconds
        self._headers = headers
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes) -> aiohttp.ClientResponse:
        """An engine's response, of any status, its body unread. Raises EngineDown or Unavailable."""
        with engine_errors():
            try:
                response = await self._opened().post(url, data=body, allow_redirects=False)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                raise EngineDown(url) from error
        return response

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTION_LIMIT, keepalive_timeout=KEEPALIVE_SECONDS),
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=self._silence_seconds,  # for a free connection
                    sock_connect=CONNECT_SECONDS,
                    sock_read=self._silence_seconds,
                ),
                headers={**HEADERS, **self._headers()},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session


@contextmanager
def engine_errors() -> Iterator[None]:
    """Around every read of a response: a silent engine and a broken connection become Unavailable."""
    try:
        yield
    except TimeoutError as error:
        raise Unavailable("The engine did not respond in time. Please try again.") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(
            "The connection to the engine broke before its response was complete. Please try again."
        ) from error


async def engine_health(engines: Mapping[str, Sequence[str]]) -> dict[str, bool]:
    """By URL, whether each engine (base id -> URLs) returns 200 for `GET /health`; takes `HEALTH_SECONDS` at most."""
    urls = list(dict.fromkeys(url for replicas in engines.values() for url in replicas))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=HEALTH_SECONDS)) as session:
        return dict(zip(urls, await asyncio.gather(*(_healthy(session, url) for url in urls)), strict=True))


async def engine_models(urls: Sequence[str], headers: Mapping[str, str]) -> dict[str, frozenset[str] | None]:
    """The models that each engine serves, by URL; None for one that does not respond in time, or refuses us."""
    timeout = aiohttp.ClientTimeout(total=HEALTH_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        return dict(zip(urls, await asyncio.gather(*(_models(session, url) for url in urls)), strict=True))


async def _models(session: aiohttp.ClientSession, url: str) -> frozenset[str] | None:
    try:
        async with session.get(f"{url}/v1/models") as response:
            listed = (await response.json())["data"]
            return frozenset(str(model["id"]) for model in listed)
    except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError):
        return None


async def _healthy(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health") as response:
            return response.status == 200
    except (aiohttp.ClientError, OSError):
        return False
