"""JSON bodies within bounds that are checked before anything is parsed: bytes, values, keys and depth.

`json` and pydantic hold the interpreter while they work, in whatever thread, and cost a multiple of what they are
given: a body of 4 MB that was all unknown keys took 24 s. Counting comes first and costs little, because only
`bytes.replace`, `split` and `count` look at the body. Used by `auth.ApiRoute`, once the caller is known.
"""

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Scope

from service.domain.errors import InvalidRequest, TooLarge
from service.domain.json import read_json

MIB = 1024 * 1024
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True)
class BodyLimits:
    """What the JSON body of one kind of route may hold. A value is an element of an array or a member of an object."""

    bytes: int
    values: int
    keys: int
    containers: int  # arrays and objects
    depth: int = 64


PLAIN = BodyLimits(bytes=MIB, values=20_000, keys=1_000, containers=1_000)  # an upload is completed with 10,000 parts
GENERATION = BodyLimits(bytes=16 * MIB, values=2**19, keys=20_000, containers=20_000)  # of tokens; of long chats


class ReadRequest(Request):
    """A request whose body has been read."""

    def __init__(self, scope: Scope, receive: Receive, content: bytes) -> None:
        super().__init__(scope, receive)
        self._content = content

    async def body(self) -> bytes:
        return self._content

    async def json(self) -> Any:
        """The body, without a key twice in an object. FastAPI turns what this raises into a 400, with its cause."""
        return read_json(self._content)


async def read_within(request: Request, limits: BodyLimits) -> ReadRequest:
    """The request with its body. Raises TooLarge or InvalidRequest, as early as that can be seen."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limits.bytes:
        raise _too_large(limits)
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limits.bytes:
            raise _too_large(limits)
    body = bytes(content)
    check_structure(body, limits)
    return ReadRequest(request.scope, request.receive, body)


def check_structure(body: bytes, limits: BodyLimits) -> None:
    """Raises InvalidRequest beyond a limit. What is no JSON may pass: the parser refuses it at once."""
    if body.count(b",") + body.count(b"[") + body.count(b"{") <= min(limits.values, limits.keys, limits.depth):
        return  # as nearly always, even with those inside of strings
    outside = _outside_strings(body, limits)
    containers = outside.count(b"[") + outside.count(b"{")
    if outside.count(b",") + containers > limits.values:
        raise _too_many("values", limits.values)
    if containers > limits.containers:
        raise _too_many("arrays and objects", limits.containers)
    if outside.count(b":") > limits.keys:
        raise _too_many("keys", limits.keys)
    brackets = outside.translate(_BRACKETS, _OTHERS)
    for _ in range(limits.depth):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise _unparsed(f"it is nested more than {limits.depth} levels deep, or its brackets do not match")


def _outside_strings(body: bytes, limits: BodyLimits) -> bytes:
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if plain.count(b'"') > 4 * limits.values:  # two for each key and for each value
        raise _too_many("values", limits.values)
    return b"".join(plain.split(b'"')[::2])


def _too_many(what: str, limit: int) -> InvalidRequest:
    return _unparsed(f"it has more than {limit:,} {what}, which is the limit")


def _unparsed(why: str) -> InvalidRequest:
    return InvalidRequest(f"We could not parse the JSON body of your request: {why}.")


def _too_large(limits: BodyLimits) -> TooLarge:
    return TooLarge(f"The body of this request may have at most {limits.bytes:,} bytes.")
