"""A request to one of the engines, and its answer back: the bytes of a good answer are the engine's own.

Called by `service.api.routes.inference` once the model is resolved and the fields are allowed; uses `routing` (which
replica), `client` (the wire), `sse` (a stream's events) and `refusals` (what an error means). Must not know keys,
adapters or the API's wire models. What a request cost is reported when its answer is closed: numbers, never text.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import aiohttp
import orjson
import structlog

from service.domain.errors import LuthierError, Unavailable
from service.domain.json import JsonObject
from service.gateway.client import EngineClient, EngineDown, engine_errors
from service.gateway.fields import Endpoint
from service.gateway.refusals import broken_off, refused
from service.gateway.routing import Replicas
from service.gateway.sse import Events

log = structlog.get_logger()

Outcome = Literal["answered", "failed", "hung_up"]


@dataclass(frozen=True)
class EngineRequest:
    """What goes to an engine of `base`: `fields` are allowed ones, `model` is the name that the engine knows.

    `reserved_tokens` were charged to the key `key_id` before anybody knew what the answer would cost.
    """

    endpoint: Endpoint
    project_id: str
    base: str
    model: str
    fields: JsonObject
    key_id: str = ""
    reserved_tokens: int = 0

    @property
    def streams(self) -> bool:
        return bool(self.fields.get("stream"))

    @property
    def wants_usage(self) -> bool:
        return bool(self.fields.get("stream_options", {}).get("include_usage"))

    def body(self) -> bytes:
        """The JSON for the engine; a stream is always asked for its usage."""
        fields = {name: value for name, value in self.fields.items() if name != "stream_options"}
        if self.streams:
            fields["stream_options"] = {"include_usage": True}
        return orjson.dumps({"model": self.model, **fields})


@dataclass(frozen=True)
class Usage:
    """What one request cost; tokens are None where the engine never said them."""

    endpoint: Endpoint
    project_id: str
    key_id: str
    base: str
    model: str
    streamed: bool
    outcome: Outcome
    prompt_tokens: int | None
    completion_tokens: int | None
    reserved_tokens: int
    seconds: float


def log_usage(usage: Usage) -> None:
    log.info("inference.done", **vars(usage))


class Answer:
    """An engine's good answer, its bytes still to be read by `body` or by `events`. Close it, always."""

    def __init__(
        self,
        request: EngineRequest,
        started: float,
        response: aiohttp.ClientResponse,
        release: Callable[[], None],
        on_done: Callable[[Usage], None],
    ) -> None:
        self._request = request
        self._started = started
        self._response = response
        self._release = release
        self._on_done = on_done
        self._closed = False
        self._outcome: Outcome = "hung_up"
        self._usage: JsonObject = {}

    async def body(self) -> bytes:
        """The whole answer, unchanged. Raises Unavailable when the engine dies or falls silent."""
        with self._watched():
            answer = await self._response.read()
        self._usage = _usage_of(answer)
        return answer

    async def events(self) -> AsyncGenerator[bytes]:
        """Whole events as they arrive. Raises LuthierError, after the last good event, when the stream breaks off."""
        events = Events(keep_usage=self._request.wants_usage)
        with self._watched():
            async for chunk in self._response.content.iter_any():
                if ready := events.feed(chunk):
                    yield ready
                if events.usage is not None:
                    self._usage = events.usage
                if events.error is not None:
                    raise broken_off(events.error, self._request.model)
            if not events.done:
                raise Unavailable("The engine's answer ended too early. Please try again.")

    def close(self) -> None:
        """Ends the connection to the engine at once, unless the answer was read to its end. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._release()
        self._on_done(self._cost())

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """What leaves this block decides the outcome; a client that hangs up cancels or closes it."""
        try:
            with engine_errors():
                yield
            self._outcome = "answered"
        except LuthierError:
            self._outcome = "failed"
            raise

    def _cost(self) -> Usage:
        return Usage(
            endpoint=self._request.endpoint,
            project_id=self._request.project_id,
            key_id=self._request.key_id,
            base=self._request.base,
            model=self._request.model,
            streamed=self._request.streams,
            outcome=self._outcome,
            prompt_tokens=self._usage.get("prompt_tokens"),
            completion_tokens=self._usage.get("completion_tokens"),
            reserved_tokens=self._request.reserved_tokens,
            seconds=round(time.monotonic() - self._started, 6),
        )


class Gateway:
    """The way to all engines of an installation; one per process."""

    def __init__(self, engines: Mapping[str, Sequence[str]], timeout_seconds: float) -> None:
        """`engines`: base id -> the URLs of its engines."""
        self._client = EngineClient(timeout_seconds)
        self._replicas = {base: Replicas(urls) for base, urls in engines.items()}

    async def open(self, request: EngineRequest, on_done: Callable[[Usage], None] = log_usage) -> Answer:
        """The answer, once its status is known to be good. Raises InvalidRequest, RateLimited or Unavailable.

        When the answer is closed, `on_done` is called with what it cost.
        """
        body = request.body()
        replicas = self._replicas.get(request.base, Replicas([]))
        for url in replicas.order(request.model):
            try:
                with ExitStack() as serving:
                    serving.enter_context(replicas.serving(url))
                    return await self._ask(url, request, body, on_done, serving)
            except EngineDown:
                log.warning("engine.down", url=url, base=request.base)
                replicas.mark_down(url)
        raise Unavailable("No engine can be reached at the moment. Please try again.")

    async def close(self) -> None:
        await self._client.close()

    async def _ask(
        self, url: str, request: EngineRequest, body: bytes, on_done: Callable[[Usage], None], opened: ExitStack
    ) -> Answer:
        """The answer takes over what is `opened`: it lasts until the answer is closed."""
        started = time.monotonic()
        response = await self._client.post(f"{url}/v1/{request.endpoint}", body)
        opened.callback(response.close)
        if response.status == 200:
            return Answer(request, started, response, opened.pop_all().close, on_done)
        with engine_errors():
            error = refused(response.status, await response.read(), request.model)
        tell = log.info if error.status < 500 else log.warning
        tell("engine.refused", url=url, engine_status=response.status, status=error.status, model=request.model)
        raise error


def _usage_of(answer: bytes) -> JsonObject:
    try:
        usage = orjson.loads(answer).get("usage")
    except (orjson.JSONDecodeError, AttributeError):
        return {}
    return usage if isinstance(usage, dict) else {}
