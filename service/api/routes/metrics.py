"""/metrics: what an installation's operators watch, in Prometheus' text format. For keys of the role admin.

Workers have no port: their state is in the database, and every API process reports the same here. A scrape reads the
database once, checks engines and Redis at the same time, and waits for none of them for long: what is unavailable is a
0, and the scrape itself succeeds.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from service.api.web.admins import LOOK_SECONDS, AdminRoute
from service.api.web.deps import ContextDep
from service.domain.errors import Unavailable
from service.domain.job import ACTIVE
from service.gateway.client import engine_health
from service.installation.context import Context
from service.operations import counts as job_counts
from service.operations.counts import JobCounts

router = APIRouter(tags=["Metrics"], route_class=AdminRoute)


@dataclass(frozen=True)
class Readings:
    """The installation at this moment; `jobs` is None while the database is unavailable, `redis` if none is set."""

    jobs: JobCounts | None
    engines: dict[str, bool]  # by URL
    redis: bool | None


@router.get("/metrics", operation_id="metrics", response_class=PlainTextResponse)
async def metrics(ctx: ContextDep, request: Request) -> Response:
    """Report what this process has done, and the jobs of the installation, to Prometheus; needs an admin's key."""
    counts, engines, redis = await asyncio.gather(_job_counts(ctx), engine_health(ctx.engines), _redis(ctx))
    registry = CollectorRegistry()
    registry.register(_Installation(ctx, Readings(counts, engines, redis)))
    page = generate_latest(registry) + request.app.state.traffic.page()
    return Response(page, media_type=CONTENT_TYPE_LATEST)


async def _job_counts(ctx: Context) -> JobCounts | None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await job_counts.count_jobs(ctx)
    except (Unavailable, TimeoutError):
        return None


async def _redis(ctx: Context) -> bool | None:
    if ctx.queue.server is None:
        return None
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await ctx.queue.check()
    except (Unavailable, TimeoutError):
        return False
    return True


class _Installation(Collector):
    """The readings as gauges. Every base of the catalogue is included, with 0 where there is nothing."""

    def __init__(self, ctx: Context, readings: Readings) -> None:
        self._ctx = ctx
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        counts, redis = self._readings.jobs, self._readings.redis
        yield GaugeMetricFamily("luthier_database_up", "Whether the database answered.", counts is not None)
        if redis is not None:
            yield GaugeMetricFamily("luthier_redis_up", "Whether Redis answered.", redis)
        yield self._engines()
        if counts is not None:
            yield self._jobs(counts)
            yield self._ended(counts)
            yield self._workers(counts)
            yield from self._by_base(counts)

    def _engines(self) -> Metric:
        found = GaugeMetricFamily("luthier_engine_up", "Whether the engine says it is healthy.", labels=["base", "url"])
        for base, urls in self._ctx.engines.items():
            for url in urls:
                found.add_metric([base, url], self._readings.engines[url])
        return found

    def _jobs(self, counts: JobCounts) -> Metric:
        found = GaugeMetricFamily("luthier_jobs", "Jobs that have not ended.", labels=["base", "status"])
        jobs = {(count.base, count.status): count.jobs for count in counts.unfinished}
        for base in self._bases(counts):
            for status in sorted(ACTIVE):
                found.add_metric([base, status], jobs.get((base, status), 0))
        return found

    def _ended(self, counts: JobCounts) -> Metric:
        found = CounterMetricFamily("luthier_jobs_ended_total", "Jobs that have ended, ever.", labels=["status"])
        for status, jobs in counts.ended.items():
            found.add_metric([status], jobs)
        return found

    def _workers(self, counts: JobCounts) -> Metric:
        found = GaugeMetricFamily(
            "luthier_workers", "Living workers that hold the base, by whether it is ready.",
            labels=["base", "ready"],
        )  # fmt: skip
        for base in sorted(self._ctx.catalogue.bases):
            reasons = [worker.bases[base] for worker in counts.workers if base in worker.bases]
            for ready in (True, False):
                found.add_metric([base, str(ready).lower()], sum((reason == "") is ready for reason in reasons))
        return found

    def _by_base(self, counts: JobCounts) -> Iterator[Metric]:
        held = GaugeMetricFamily("luthier_jobs_held", "Jobs that a living worker holds.", labels=["base"])
        lost = GaugeMetricFamily("luthier_jobs_lost", "Jobs that wait after their worker was lost.", labels=["base"])
        trained = GaugeMetricFamily("luthier_jobs_to_announce", "Jobs trained, but not yet announced.", labels=["base"])
        waiting = GaugeMetricFamily(
            "luthier_jobs_waiting_seconds", "Age of the oldest job that no worker has begun.", labels=["base"]
        )
        now = time.time()
        for base in self._bases(counts):
            of_base = [count for count in counts.unfinished if count.base == base]
            held.add_metric([base], sum(count.held for count in of_base))
            lost.add_metric([base], sum(count.lost for count in of_base))
            trained.add_metric([base], sum(count.trained for count in of_base))
            made = [count.unstarted_since for count in of_base if count.unstarted_since is not None]
            waiting.add_metric([base], max(0.0, now - min(made, default=now)))
        yield from (held, lost, trained, waiting)

    def _bases(self, counts: JobCounts) -> Sequence[str]:
        """Those of the catalogue, and those that unfinished jobs still name."""
        return sorted({*self._ctx.catalogue.bases, *(count.base for count in counts.unfinished)})
