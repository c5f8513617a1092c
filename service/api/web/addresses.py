"""The outermost layer: other ways to say an address of the API, so that clients of other services find it.

`/openai/v1/...`, Azure's, is `/v1/...`. HEAD is a GET of which only the head is sent. A path that no route has is a 404
that says where the API is (`where`). Plain ASGI, so that streams pass untouched.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

API = "/v1"
AZURE = "/openai/v1"


class Addresses:
    """Middleware: see the module."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = _at_home(scope)
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        head = _Head(receive, send)
        await self._app({**scope, "method": "GET"}, head.receive, head.send)


def where(path: str) -> str:
    """What to write instead of a path that leads nowhere, as a sentence with a space before it; empty if unknown."""
    if path.startswith(f"{API}{API}/"):
        return f" The base URL has '{API}' already: use {path.removeprefix(API)}."
    if path.startswith("/openai/"):
        return f" The API is at {API}, and for clients of Azure at {AZURE}, without a deployment in the path."
    return "" if path.startswith(f"{API}/") else f" The API is at {API}: use a base URL that ends with {API}."


def _at_home(scope: Scope) -> Scope:
    """The scope of the same request at the API's own path."""
    path: str = scope["path"]
    if path != AZURE and not path.startswith(f"{AZURE}/"):
        return scope
    raw: bytes = scope.get("raw_path") or path.encode()
    return {**scope, "path": path.removeprefix("/openai"), "raw_path": raw.removeprefix(b"/openai")}


class _Head:
    """A response whose head alone is sent; whoever makes its body is told that the client has gone."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._started = False
        self._ended = False

    async def receive(self) -> Message:
        return {"type": "http.disconnect"} if self._started else await self._receive()

    async def send(self, message: Message) -> None:
        if self._ended:
            raise OSError("only the head of this response is sent")  # Starlette's sign of a client that has gone
        await self._send({"type": "http.response.body", "body": b""} if self._started else message)
        self._ended, self._started = self._started, True
