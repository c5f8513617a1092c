"""Which URLs and which network addresses a webhook may go to.

A URL is checked when it is registered, and the addresses of its host each time before anything is sent: a name may lead
elsewhere a moment later. Every address must be public, in whatever form it is written: an IPv6 address that carries an
IPv4 one leads to that.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from service.domain.errors import InvalidRequest

URL_LIMIT = 2048
# Networks of IPv6 whose addresses lead to IPv4 ones through a gateway, or did once: no public receiver needs them.
TRANSITION = tuple(
    IPv6Network(network)
    for network in (
        "::/96",  # IPv4-compatible (RFC 4291), deprecated
        "64:ff9b::/96",  # NAT64 (RFC 6052)
        "64:ff9b:1::/48",  # NAT64, local (RFC 8215)
        "2001::/32",  # Teredo (RFC 4380)
        "2002::/16",  # 6to4 (RFC 3056)
        "fec0::/10",  # site-local (RFC 3879), deprecated
    )
)


class ForbiddenTarget(Exception):
    """The URL or an address of its host may not be called; the message says why, without naming the address."""


def check_url(url: str, *, private: bool) -> None:
    """Raises InvalidRequest for a URL that a webhook cannot have. `private`: http and any host are allowed."""
    try:
        parts = split(url, private=private)
        literal = literal_address(parts.hostname or "")
        if literal is not None and not private:
            check_addresses([literal])
    except ForbiddenTarget as error:
        raise InvalidRequest(f"'url' cannot be used: {error}.", param="url", code="invalid_webhook_url") from error


def split(url: str, *, private: bool) -> SplitResult:
    """The parts of a URL that is formed as it should be. Raises ForbiddenTarget."""
    if len(url) > URL_LIMIT:
        raise ForbiddenTarget(f"it has more than {URL_LIMIT} characters")
    if any(character <= " " or character == "\\" or ord(character) > 126 for character in url):
        raise ForbiddenTarget("write it in ASCII without spaces and backslashes, a host with other letters in punycode")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ForbiddenTarget("it is not a URL") from None
    if parts.scheme != "https" and not (private and parts.scheme == "http"):
        raise ForbiddenTarget("it must begin with https://")
    if parts.username is not None or parts.password is not None:
        raise ForbiddenTarget("it has a user name or password; a receiver checks the signature instead")
    host = parts.hostname
    if not host or port == 0 or "%" in parts.netloc:
        raise ForbiddenTarget("it has no host")
    if not private and literal_address(host) is None:
        _check_name(host)
    return parts


def literal_address(host: str) -> str | None:
    """The address that the host is written as; None for a name."""
    try:
        return str(ip_address(host))
    except ValueError:
        return None


def check_addresses(addresses: Iterable[str]) -> None:
    """Raises ForbiddenTarget unless each address is public."""
    if not all(is_public(ip_address(address.partition("%")[0])) for address in addresses):
        raise ForbiddenTarget("its host has an address that is not public (LUTHIER_WEBHOOK_PRIVATE allows those)")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address is one of the internet's hosts, and leads to no other address."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in TRANSITION):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


def _check_name(host: str) -> None:
    """Refuses what resolvers take for a number (2130706433, 0x7f.1, 0177.0.0.1) and names without a dot."""
    labels: Sequence[str] = host.rstrip(".").split(".")
    last = labels[-1]
    if len(labels) < 2 or last[:1].isdigit() or not last.replace("-", "").isalnum():
        raise ForbiddenTarget("its host is neither the full name of a public host nor an address in the usual form")
