"""The URLs that settings hold: what each may be. Every function returns its text, or raises ValueError.

Messages never show the text, which may have a password in it.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

HTTP = ("http", "https")
REDIS = ("redis", "rediss")


def http_url(text: str) -> str:
    """A URL of http or https with a host, or nothing."""
    if text:
        _check(text, HTTP)
    return text


def http_urls(text: str) -> str:
    """Such URLs with a comma between two, or nothing."""
    for one in text.split(",") if text else ():
        _check(one.strip(), HTTP)
    return text


def origins(text: str) -> str:
    """Origins with a comma between two: scheme, host and perhaps a port, nothing after it; or `*`; or nothing."""
    for one in text.split(",") if text else ():
        origin = one.strip().rstrip("/")
        if origin == "*":
            continue
        _check(origin, HTTP)
        parts = urlsplit(origin)
        if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("an origin ends after its host and port, such as https://app.example.com")
    return text


def redis_url(text: str) -> str:
    """A URL of redis or rediss with a host, one of unix with a path, or nothing."""
    if text.startswith("unix://"):
        if not urlsplit(text).path:
            raise ValueError("a unix:// URL has the path of a socket, such as unix:///run/redis.sock")
    elif text:
        _check(text, REDIS)
    return text


def _check(text: str, schemes: Sequence[str]) -> None:
    try:
        parts = urlsplit(text)
        whole = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, half of an IPv6 address
        whole = False
    if not whole or any(character.isspace() for character in text):
        raise ValueError(f"should be a URL such as {schemes[0]}://host:port, with a port below 65536")
