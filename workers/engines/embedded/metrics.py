"""An engine's metrics for Prometheus: vLLM's names with our prefix, read at each scrape."""

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from workers.engines.embedded.engine import Engine

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
        yield self._gauge("luthier_engine_num_requests_running", "Sequences being generated.", batcher.num_running)
        yield self._gauge("luthier_engine_num_requests_waiting", "Sequences waiting for a row.", batcher.num_waiting)
        yield self._gauge("luthier_engine_adapters_resident", "Adapters in memory.", len(residents.names))
        yield self._counter("luthier_engine_prompt_tokens_total", "Prompt tokens computed.", counts.prompt_tokens)
        yield self._counter("luthier_engine_generation_tokens_total", "Tokens generated.", counts.generated_tokens)
        yield self._counter("luthier_engine_generation_failures_total", "Batches that failed.", counts.failures)
        yield self._counter("luthier_engine_adapter_loads_total", "Adapters put into memory.", residents.num_loads)
        yield self._counter("luthier_engine_adapter_evictions_total", "Adapters evicted.", residents.num_evictions)

    def _gauge(self, name: str, meaning: str, value: int) -> GaugeMetricFamily:
        metric = GaugeMetricFamily(name, meaning, labels=["model_name"])
        metric.add_metric([self._engine.base.id], value)
        return metric

    def _counter(self, name: str, meaning: str, value: int) -> CounterMetricFamily:
        metric = CounterMetricFamily(name, meaning, labels=["model_name"])
        metric.add_metric([self._engine.base.id], value)
        return metric
