"""The limits of one process, in its memory, which is never unavailable."""

import time
from collections.abc import Callable, Mapping

from service.gateway.forward import EngineRequest, RequestCost
from service.gateway.limits.base import Kind, PerMinute, Standing, beyond_reserved, costs_of
from service.gateway.limits.meter import KeyMeter


class MemoryLimits:
    """`RateLimits` for a single API process: a meter for every key that was used."""

    def __init__(self, per_minute: PerMinute, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = per_minute.by_kind()
        self._clock = clock
        self._meters: dict[str, KeyMeter] = {}

    async def admit(self, request: EngineRequest, organization: str) -> None:
        meter, costs = self._meter(request.key_id), costs_of(request)
        meter.check(costs, request.model, organization)
        meter.charge(costs)

    def settle(self, usage: RequestCost) -> None:
        self._meter(usage.key_id).charge({"tokens": beyond_reserved(usage)})

    def standing(self, key_id: str) -> Mapping[Kind, Standing]:
        return self._meter(key_id).standing()

    def _meter(self, key_id: str) -> KeyMeter:
        if key_id not in self._meters:
            self._meters[key_id] = KeyMeter(self._limits, self._clock)
        return self._meters[key_id]
