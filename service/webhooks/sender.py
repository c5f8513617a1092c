"""One POST to a URL that a user has named, bound to addresses that were checked just before.

The name is resolved once, every address is checked, and the connection goes to those addresses: a second look-up, which
could say something else, does not happen. Host and TLS name are the URL's own. Redirects are not followed, proxies and
cookies not used, and of the response only its status is read.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from service.webhooks.targets import ForbiddenTarget, check_addresses, literal_address, split

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
LINE_LIMIT_BYTES = 8190  # of the response's head


@dataclass(frozen=True)
class Sent:
    """How an attempt ended: the status of the response, or why there was none."""

    status: int | None
    error: str = ""

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def reason(self) -> str:
        """For people: why it was not delivered."""
        return self.error or f"it responded with status {self.status}"


async def resolve(host: str, port: int) -> list[str]:
    """Every address of the host, as the system's resolver has them. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


class WebhookSender:
    """Sends; nothing is kept between two requests, so that no connection outlives the check of its address."""

    def __init__(self, timeout_seconds: float, *, private: bool, resolve: Resolve = resolve) -> None:
        """`timeout_seconds` bounds a whole attempt. `private`: http, and addresses of every kind, are allowed."""
        self._timeout_seconds = timeout_seconds
        self._private = private
        self._resolve = resolve

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Sent:
        """One attempt. Never raises for what the receiver or its network does."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                parts = split(url, private=self._private)
                target = URL(url)
                if target.host != parts.hostname:  # two readers of the URL would call two hosts
                    raise ForbiddenTarget("its host is not clear")
                return await self._post(target, await self._checked(parts), body, headers)
        except ForbiddenTarget as error:
            return Sent(None, str(error))
        except TimeoutError:
            return Sent(None, f"it did not respond within {self._timeout_seconds:g} seconds")
        except (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError):
            return Sent(None, "its TLS certificate is not valid")
        except (aiohttp.ClientError, OSError, ValueError, UnicodeError):
            return Sent(None, "it cannot be reached, or does not speak HTTP")

    async def _checked(self, parts: SplitResult) -> list[str]:
        """The addresses that may be connected to. Raises ForbiddenTarget where one of them may not, or OSError."""
        host = parts.hostname or ""
        literal = literal_address(host)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        addresses = [literal] if literal is not None else list(await self._resolve(host, port))
        if not addresses:
            raise OSError("no address")
        if not self._private:
            check_addresses(addresses)
        return addresses

    async def _post(self, url: URL, addresses: Sequence[str], body: bytes, headers: Mapping[str, str]) -> Sent:
        connector = aiohttp.TCPConnector(resolver=_Pinned(addresses), use_dns_cache=False, force_close=True)
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                max_line_size=LINE_LIMIT_BYTES,
                max_field_size=LINE_LIMIT_BYTES,
            ) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            return Sent(response.status)


class _Pinned(AbstractResolver):
    """Knows the addresses that were checked, and looks nothing up."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        return
