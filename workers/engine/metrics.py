"""What an engine tells Prometheus: names after vLLM's with our prefix. Read when asked; knows no requests."""

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from workers.engine.engine import Engine

CONTENT_TYPE = CONTENT_TYPE_LATEST


def render_metrics(engine: Engine) -> bytes:
    """All metrics in Prometheus' text format, each with its base as the label `model_name`."""
    registry = CollectorRegistry()
    registry.register(_Readings(engine))
    return generate_latest(registry)


class _Readings(Collector):
    """One engine's numbers at this moment."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        batcher, residents = self._engine.batcher, self._engine.residents
        counts = batcher.counts
        yield self._gauge("num_requests_running", "Sequences that are being generated.", batcher.num_running)
        yield self._gauge("num_requests_waiting", "Sequences that wait for a place in the batch.", batcher.num_waiting)
        yield self._gauge("adapters_resident", "Adapters in memory.", len(residents.names))
        yield self._counter("prompt_tokens", "Prompt tokens computed.", counts.prompt_tokens)
        yield self._counter("generation_tokens", "Tokens generated.", counts.generated_tokens)
        yield self._counter("generation_failures", "Batches that the model could not compute.", counts.failures)
        yield self._counter("adapter_loads", "Adapters put into memory.", residents.num_loads)
        yield self._counter("adapter_evictions", "Adapters evicted from memory.", residents.num_evictions)

    def _gauge(self, name: str, meaning: str, value: int) -> GaugeMetricFamily:
        metric = GaugeMetricFamily(f"luthier_engine_{name}", meaning, labels=["model_name"])
        metric.add_metric([self._engine.base.id], value)
        return metric

    def _counter(self, name: str, meaning: str, value: int) -> CounterMetricFamily:
        """Named `..._total` on the page, as Prometheus has it."""
        metric = CounterMetricFamily(f"luthier_engine_{name}", meaning, labels=["model_name"])
        metric.add_metric([self._engine.base.id], value)
        return metric
