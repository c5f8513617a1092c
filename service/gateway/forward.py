"""A request to one of the engines, and its response: the bytes of a successful response are the engine's own.

Called by `service.api.routes.inference` once the model is resolved and the fields are allowed; uses `routing` (which
replica) and `client` (the wire). Does not use keys, adapters or the API's wire models. The cost of a request is
reported when its response is closed: numbers, never text.

Errors of an engine come in two forms: OpenAI's envelope, where vLLM puts the HTTP status into `code`, and anything
else, which is the engine's failure. The database has already confirmed that the model exists and may be used.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
import orjson
import structlog

from service.domain.errors import InvalidRequest, LuthierError, RateLimited, Unavailable
from service.domain.json import JsonObject
from service.domain.model_alias import Role
from service.gateway.client import EngineClient, EngineDown, engine_errors
from service.gateway.events import EngineEvents
from service.gateway.fields import Endpoint
from service.gateway.relayed import RelayedTokens
from service.gateway.routing import Replicas

log = structlog.get_logger()

Outcome = Literal["answered", "failed", "hung_up"]

CLIENT_ERRORS = frozenset({400, 413, 422})
CONTEXT_LENGTH = "This model's maximum context length"
NOT_LOADED = "was found but could not be loaded"  # vLLM's 400 for an adapter: nothing that the client sent is wrong
INTERNAL = frozenset({"input_tokens"})  # vLLM's names for what no client sent


@dataclass(frozen=True)
class EngineRequest:
    """A request for an engine of `base`: `fields` are allowed ones, `model` is the name that the engine uses.

    `alias` is the model alias that the client said, "" for none, and `role` which of its models serves the request.
    `reserved_tokens` were charged to the key `key_id` before the cost of the response was known. `sequences` are what
    an engine generates for it: `n` for every prompt.
    """

    endpoint: Endpoint
    project_id: str
    base: str
    model: str
    fields: JsonObject
    key_id: str = ""
    reserved_tokens: int = 0
    sequences: int = 1
    alias: str = ""
    role: Role = "model"

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
class RequestCost:
    """What one request cost; tokens are None where the engine did not report them.

    `relayed_tokens`: then about how many a stream had relayed (`RelayedTokens`), and 0 otherwise.
    """

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
    alias: str = ""
    role: Role = "model"
    relayed_tokens: int = 0


def log_usage(usage: RequestCost) -> None:
    log.info("inference.done", **vars(usage))


class EngineResponse:
    """An engine's successful response, to be read by `body` or by `events`. Always close it."""

    def __init__(
        self,
        request: EngineRequest,
        started: float,
        response: aiohttp.ClientResponse,
        release: Callable[[], None],
        on_done: Callable[[RequestCost], None],
    ) -> None:
        self._request = request
        self._started = started
        self._response = response
        self._release = release
        self._on_done = on_done
        self._closed = False
        self._outcome: Outcome = "hung_up"
        self._usage: JsonObject = {}
        self._relayed = RelayedTokens()

    @property
    def model(self) -> str:
        """The engine's name of what responds."""
        return self._request.model

    async def body(self) -> bytes:
        """The whole body, unchanged. Raises Unavailable if the engine ends or stops sending."""
        with self._watched():
            answer = await self._response.read()
        self._usage = _usage_of(answer)
        return answer

    async def events(self) -> AsyncGenerator[bytes]:
        """Whole events as they arrive. Raises LuthierError, after the last good event, when the stream breaks off."""
        events = EngineEvents(keep_usage=self._request.wants_usage)
        with self._watched():
            while chunk := await self._response.content.readany():
                ready = events.feed(chunk)
                if events.usage is not None:
                    self._usage = events.usage
                if ready:
                    self._relayed.add(ready)
                    yield ready
                if events.error is not None:
                    raise broken_off(events.error, self._request.model)
            if not events.done:
                raise Unavailable("The engine's response ended too early. Please try again.")

    def close(self) -> None:
        """Ends the connection to the engine at once, unless the response was read to its end. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._release()
        self._on_done(self._cost())

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """How this block ends decides the outcome; a client that disconnects cancels or closes it."""
        try:
            with engine_errors():
                yield
            self._outcome = "answered"
        except LuthierError:
            self._outcome = "failed"
            raise

    def _cost(self) -> RequestCost:
        return RequestCost(
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
            alias=self._request.alias,
            role=self._request.role,
            relayed_tokens=0 if "completion_tokens" in self._usage else self._relayed.count,
        )


class Gateway:
    """The way to all engines of an installation; one per process."""

    def __init__(
        self,
        engines: Mapping[str, Sequence[str]],
        timeout_seconds: float,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`engines`: base id -> the URLs of its engines; `headers` of every request to one."""
        self._client = EngineClient(timeout_seconds, headers)
        self._replicas = {base: Replicas(urls) for base, urls in engines.items()}

    async def open(self, request: EngineRequest, on_done: Callable[[RequestCost], None] = log_usage) -> EngineResponse:
        """The response, once its status is known to be 200. Raises InvalidRequest, RateLimited or Unavailable.

        When the response is closed, `on_done` is called with its cost.
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
        self, url: str, request: EngineRequest, body: bytes, on_done: Callable[[RequestCost], None], opened: ExitStack
    ) -> EngineResponse:
        """The response takes over what is `opened`, until it is closed."""
        started = time.monotonic()
        response = await self._client.post(f"{url}/v1/{request.endpoint}", body)
        opened.callback(response.close)
        if response.status == 200:
            return EngineResponse(request, started, response, opened.pop_all().close, on_done)
        with engine_errors():
            error = refused(response.status, await response.read(), request.model)
        report = log.info if error.status < 500 else log.warning
        report("engine.refused", url=url, engine_status=response.status, status=error.status, model=request.model)
        raise error


def _usage_of(answer: bytes) -> JsonObject:
    try:
        usage = orjson.loads(answer).get("usage")
    except (orjson.JSONDecodeError, AttributeError):
        return {}
    return usage if isinstance(usage, dict) else {}


def refused(status: int, answer: bytes, model: str) -> LuthierError:
    """The error for an engine's response whose status is not 200."""
    try:
        envelope = orjson.loads(answer)
    except orjson.JSONDecodeError:
        envelope = None
    error = envelope.get("error") if isinstance(envelope, dict) else None
    return in_our_words(status, error if isinstance(error, dict) else {}, model)


def broken_off(error: JsonObject, model: str) -> LuthierError:
    """The error for an error event in the middle of a stream; vLLM keeps its status in `code`."""
    status = error.get("code")
    return in_our_words(status if isinstance(status, int) else 500, error, model)


def in_our_words(status: int, error: JsonObject, model: str) -> LuthierError:
    """Errors that the client can correct keep the engine's message; the others mean: try again."""
    message = error.get("message")
    if status == 404:
        return Unavailable(
            f"The model '{model}' exists, but its engine has not loaded it at the moment. Please try again."
        )
    if status == 429:
        return RateLimited("The engine has too many requests at the moment. Please try again later.")
    if status in CLIENT_ERRORS and isinstance(message, str) and NOT_LOADED not in message:
        param = _text(error.get("param"))
        return InvalidRequest(
            message, param=None if param in INTERNAL else param, code=_code(error.get("code"), message)
        )
    return Unavailable("The engine could not process the request. Please try again.")


def _code(code: Any, message: str) -> str | None:
    if message.startswith(CONTEXT_LENGTH):
        return "context_length_exceeded"
    return _text(code)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
