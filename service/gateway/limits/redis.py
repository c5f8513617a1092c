"""The limits of several API processes, in Redis; without Redis every request passes.

The levels and their arithmetic are those of `meter.Bucket`, in one Redis script, by Redis' clock: check and charge are
atomic. A key's levels expire once they have leaked to nothing. The real cost of a response is charged in the
background. Does not use HTTP.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping

import structlog

from service.gateway.forward import EngineRequest, RequestCost
from service.gateway.limits.base import Kind, PerMinute, Standing, beyond_reserved, costs_of
from service.gateway.limits.meter import DEBT_LIMITS, MINUTE_SECONDS, KeyMeter
from service.queue.redis import UNAVAILABLE, RedisConnection

log = structlog.get_logger()
RESPONSE_SECONDS = 0.2
REST_SECONDS = 1.0  # after Redis was unavailable, so that not every request waits for it

# KEYS: one bucket per kind. ARGV: "1" to charge only what fits, then limit and cost of each kind.
# Returns whether it charged, and the level of each kind before that (as text: Redis would cut fractions off).
CHARGE = f"""
local now = redis.call('TIME')
now = now[1] + now[2] / 1e6
local levels, charged = {{}}, 1
for i, key in ipairs(KEYS) do
  local limit, cost = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local kept = redis.call('HMGET', key, 'level', 'at')
  local leaked = (now - (tonumber(kept[2]) or now)) * limit / {MINUTE_SECONDS}
  levels[i] = math.max(0, (tonumber(kept[1]) or 0) - leaked)
  if ARGV[1] == '1' and levels[i] + cost - limit > limit * 0.0005 / {MINUTE_SECONDS} then charged = 0 end
end
for i, key in ipairs(KEYS) do
  if charged == 1 then
    local limit, cost = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
    local level = math.min(math.max(0, levels[i] + cost), limit * {DEBT_LIMITS})
    redis.call('HSET', key, 'level', tostring(level), 'at', string.format('%.6f', now))
    redis.call('PEXPIRE', key, math.ceil({MINUTE_SECONDS * DEBT_LIMITS} * 1000))
  end
  levels[i] = string.format('%.6f', levels[i])
end
return {{charged, levels}}
"""


class RedisLimits:
    """`RateLimits` over all API processes. Keeps the last levels of each key, for headers and errors."""

    def __init__(
        self, per_minute: PerMinute, redis: RedisConnection, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = per_minute.by_kind()
        self._clock = clock
        self._script = redis.client.register_script(CHARGE)
        self._meters: dict[str, KeyMeter] = {}
        self._unavailable_until = -math.inf
        self._settling: set[asyncio.Task[bool | None]] = set()

    async def admit(self, request: EngineRequest, organization: str) -> None:
        costs = {kind: cost for kind, cost in costs_of(request).items() if kind in self._limits}
        charged = await self._charge(request.key_id, costs, only_if_it_fits=True)
        if charged is None:
            return
        meter = self._meters[request.key_id]
        if not charged:
            meter.check(costs, request.model, organization)
            await self._charge(request.key_id, costs, only_if_it_fits=False)  # by now it fits
        meter.charge(costs)

    def settle(self, usage: RequestCost) -> None:
        if usage.key_id not in self._meters or "tokens" not in self._limits:
            return
        beyond = beyond_reserved(usage)
        self._meters[usage.key_id].charge({"tokens": beyond})
        charging = asyncio.create_task(self._charge(usage.key_id, {"tokens": beyond}, only_if_it_fits=False))
        self._settling.add(charging)  # the loop holds weak references only
        charging.add_done_callback(self._settling.discard)

    def standing(self, key_id: str) -> Mapping[Kind, Standing]:
        return self._meters[key_id].standing() if key_id in self._meters else {}

    async def settled(self) -> None:
        """Returns when the cost of all responses so far is charged."""
        await asyncio.gather(*self._settling)

    async def _charge(self, key_id: str, costs: Mapping[Kind, int], *, only_if_it_fits: bool) -> bool | None:
        """Whether the costs were charged; None while Redis is unavailable."""
        if not costs or self._clock() < self._unavailable_until:
            self._meters.pop(key_id, None)
            return None
        words = [word for kind, cost in costs.items() for word in (self._limits[kind], cost)]
        try:
            async with asyncio.timeout(RESPONSE_SECONDS):
                charged, levels = await self._script(
                    keys=[f"luthier:limits:{key_id}:{kind}" for kind in costs], args=[int(only_if_it_fits), *words]
                )
        except UNAVAILABLE as error:
            log.warning("limits.unavailable", reason=type(error).__name__)
            self._unavailable_until = self._clock() + REST_SECONDS
            self._meters.pop(key_id, None)
            return None
        if only_if_it_fits:
            meter = self._meters.setdefault(key_id, KeyMeter(self._limits, self._clock))
            meter.set({kind: float(level) for kind, level in zip(costs, levels, strict=True)})
        return bool(charged)
