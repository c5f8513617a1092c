"""What this process has done since its start, in Prometheus' counters: requests, their time, tokens.

Filled by `headers` (every response) and from the gateway's costs; read by `metrics`. A label is never text that a
client made up for one request: no path, no model's name, no method. Model aliases are labels, of which a project has a
quota. Each app has a registry of its own.
"""

from collections.abc import Iterable, Iterator, Sequence

from fastapi.routing import iter_route_contexts
from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, ProcessCollector, generate_latest
from prometheus_client.registry import Collector
from starlette.routing import BaseRoute, Mount
from starlette.types import Scope

from service.gateway.forward import RequestCost

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
NO_ROUTE = "none"
ABANDONED = "abandoned"  # the client disconnected before there was a status
BUCKETS_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)  # uploads and streams take minutes
KINDS = ("prompt", "completion")


class Traffic:
    """The counters of one app."""

    def __init__(self, routes: Sequence[BaseRoute], bases: Iterable[str], number: int | None = None) -> None:
        """`routes`: all of the app's; `bases`: ids, whose counters begin at 0 instead of at their first token.

        With a `number`, of one of several processes, every series has it as its label `process`.
        """
        self.registry = CollectorRegistry()
        self._number = number
        ProcessCollector(registry=self.registry)
        self._patterns = {context.endpoint: context.path_format for context in iter_route_contexts(routes)}
        self._requests = Counter(
            "luthier_http_requests_total",
            "Requests by the status of their response; `abandoned`: the client disconnected before there was one.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "luthier_http_request_seconds",
            "From the first byte of a request to the last of its response.",
            ["method", "route"],
            registry=self.registry,
            buckets=BUCKETS_SECONDS,
        )
        self._tokens = Counter(
            "luthier_tokens_total",
            "Tokens that engines report to have read and generated for this process' clients; of a stream that broke "
            "off, about those that were relayed.",
            ["kind", "base"],
            registry=self.registry,
        )
        self._alias_requests = Counter(
            "luthier_alias_requests_total",
            "Requests that said a model alias, by which of its two models served them and how their response ended.",
            ["project", "alias", "role", "outcome"],
            registry=self.registry,
        )
        for base in bases:
            for kind in KINDS:
                self._tokens.labels(kind, base)

    def add(self, prefix: str, routes: Sequence[BaseRoute]) -> None:
        """Names the routes of an app that is mounted at `prefix`, and what is mounted in it."""
        for context in iter_route_contexts(routes):
            self._patterns[context.endpoint] = f"{prefix}{context.path_format or ''}"
        for route in routes:
            if isinstance(route, Mount):
                self._patterns[route.app] = prefix + route.path

    def page(self) -> bytes:
        """The counters, in Prometheus' text format."""
        if self._number is None:
            return generate_latest(self.registry)
        labelled = CollectorRegistry()
        labelled.register(_OfProcess(self.registry, self._number))
        return generate_latest(labelled)

    def route(self, scope: Scope) -> str:
        """The pattern that the request matched, never the path that the client sent."""
        return self._patterns.get(scope.get("endpoint")) or NO_ROUTE

    def count(self, scope: Scope, status: int | None, seconds: float) -> None:
        """Counts a request that has ended; `status` is None if it had no response."""
        method = scope["method"] if scope["method"] in METHODS else OTHER
        route = self.route(scope)
        self._requests.labels(method, route, ABANDONED if status is None else str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def used(self, usage: RequestCost) -> None:
        """Counts one response, and its tokens: as its engine reported them, or about those that were relayed."""
        if usage.alias:
            self._alias_requests.labels(usage.project_id, usage.alias, usage.role, usage.outcome).inc()
        completion = usage.relayed_tokens if usage.completion_tokens is None else usage.completion_tokens
        for kind, tokens in zip(KINDS, (usage.prompt_tokens or 0, completion), strict=True):
            self._tokens.labels(kind, usage.base).inc(tokens)


class _OfProcess(Collector):
    """Everything in a registry, with one more label: a scrape meets any of several processes, whose counters differ."""

    def __init__(self, registry: CollectorRegistry, number: int) -> None:
        self._registry = registry
        self._number = number

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [
                sample._replace(labels={**sample.labels, "process": str(self._number)}) for sample in metric.samples
            ]
            yield metric
