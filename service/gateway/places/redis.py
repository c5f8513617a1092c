"""The places of several API processes, in Redis; without Redis, those of this process.

The rule is that of `memory`. Of each project and base one request per process asks, again and again, until one Redis
script admits it; the project's others wait in line behind it. What is held expires unless its process renews it, so
that the places of a killed process return. Does not use HTTP.
"""

import asyncio
import secrets
import time
from collections import defaultdict
from contextlib import suppress

import structlog

from service.gateway.forward import EngineRequest
from service.gateway.places.base import Capacity, Release, too_late
from service.gateway.places.memory import MemoryPlaces, RequestCounts
from service.queue.redis import UNAVAILABLE, RedisConnection

log = structlog.get_logger()
RESPONSE_SECONDS = 0.5
ASK_SECONDS = 0.05
HELD_SECONDS = 15.0
RENEW_SECONDS = 5.0
WAITING_SECONDS = 1.0  # how long a project counts as waiting after it has asked

# KEYS: what is held, who waits (until when), since when. ARGV: project, weight, member, capacity, share. Returns 1 for
# a request that was admitted.
ENTER = f"""
local now = redis.call('TIME')
now = now[1] + now[2] / 1e6
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local project, weight, capacity, share = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])
local held, total = {{}}, 0
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local owner, places = string.match(member, '^(%S+) (%d+) ')
  held[owner], total = (held[owner] or 0) + tonumber(places), total + tonumber(places)
end
local mine = held[project] or 0
if mine > 0 and mine + weight > share then return 0 end
redis.call('ZADD', KEYS[3], 'NX', now, project)
local since, first = tonumber(redis.call('ZSCORE', KEYS[3], project)), true
for _, other in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  local theirs = held[other] or 0
  if other == project then
  elseif not redis.call('ZSCORE', KEYS[2], other) then redis.call('ZREM', KEYS[3], other)
  elseif theirs < mine then first = false
  elseif theirs == mine and tonumber(redis.call('ZSCORE', KEYS[3], other)) < since then first = false end
end
if first and (total == 0 or total + weight <= capacity) then
  redis.call('ZADD', KEYS[1], now + {HELD_SECONDS}, ARGV[3])
  redis.call('ZREM', KEYS[2], project)
  redis.call('ZREM', KEYS[3], project)
  return 1
end
redis.call('ZADD', KEYS[2], now + {WAITING_SECONDS}, project)
return 0
"""

# KEYS: what is held. ARGV: members, which this process still holds.
RENEW = f"""
local now = redis.call('TIME')
for _, member in ipairs(ARGV) do redis.call('ZADD', KEYS[1], now[1] + {HELD_SECONDS}, member) end
"""


class RedisPlaces:
    """`Places` over all API processes; requests of one project are counted in each process."""

    def __init__(self, capacity: Capacity, redis: RedisConnection, alone: MemoryPlaces) -> None:
        """`alone` is used while Redis is unavailable."""
        self._capacity = capacity
        self._client = redis.client
        self._enter = redis.client.register_script(ENTER)
        self._renew = redis.client.register_script(RENEW)
        self._alone = alone
        self._requests = RequestCounts(capacity.requests_per_project)
        self._lines: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._held: defaultdict[str, set[str]] = defaultdict(set)  # by base
        self._left = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None

    async def take(self, request: EngineRequest) -> Release:
        with self._requests.counted(request.project_id) as counted:
            return counted.until(await self._in_turn(request))

    async def _in_turn(self, request: EngineRequest) -> Release:
        weight = self._capacity.weight(request)
        member = f"{request.project_id} {weight} {secrets.token_hex(8)}"
        try:
            async with (
                asyncio.timeout(self._capacity.wait_seconds),
                self._lines[request.project_id, request.base],
            ):
                admitted = await self._admitted(request, weight, member)
        except TimeoutError:
            self._leave(request.base, member)
            raise too_late(self._capacity.wait_seconds) from None
        except BaseException:
            self._leave(request.base, member)  # it may have been admitted just now
            raise
        return (lambda: self._leave(request.base, member)) if admitted else await self._alone.enter(request)

    async def _admitted(self, request: EngineRequest, weight: int, member: str) -> bool:
        """Waits for the turn; False when Redis is unavailable."""
        base = request.base
        arguments: list[str | int] = [
            request.project_id,
            weight,
            member,
            self._capacity.of(base),
            self._capacity.share(base),
        ]
        task = asyncio.current_task()
        assert task is not None
        while True:
            self._left.clear()
            try:
                async with asyncio.timeout(RESPONSE_SECONDS):
                    found = await self._enter(keys=[_held(base), _waiting(base), _since(base)], args=arguments)
            except UNAVAILABLE as error:
                log.warning("places.unavailable", reason=type(error).__name__)
                return False
            if task.cancelling():  # swallowed by the client, see `service.queue.redis.end`
                raise asyncio.CancelledError
            if found:
                self._held[base].add(member)
                self._keep_renewing()
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_SECONDS):
                    await self._left.wait()

    def _leave(self, base: str, member: str) -> None:
        self._held[base].discard(member)
        self._left.set()
        task = asyncio.create_task(self._remove(base, member))
        self._tasks.add(task)  # the loop holds weak references only
        task.add_done_callback(self._tasks.discard)

    async def _remove(self, base: str, member: str) -> None:
        try:
            await self._client.zrem(_held(base), member)
        except UNAVAILABLE as error:
            log.warning("places.unavailable", reason=type(error).__name__)  # it expires

    def _keep_renewing(self) -> None:
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew_held())

    async def _renew_held(self) -> None:
        """Until nothing is held any more."""
        renewed_at = time.monotonic()
        while any(self._held.values()):
            await asyncio.sleep(RENEW_SECONDS - min(RENEW_SECONDS, time.monotonic() - renewed_at))
            renewed_at = time.monotonic()
            for base, members in self._held.items():
                if members:
                    await self._renew_base(base, list(members))

    async def _renew_base(self, base: str, members: list[str]) -> None:
        try:
            await self._renew(keys=[_held(base)], args=members)
        except UNAVAILABLE as error:
            log.warning("places.unavailable", reason=type(error).__name__)


def _held(base: str) -> str:
    return f"luthier:places:{base}:held"


def _waiting(base: str) -> str:
    return f"luthier:places:{base}:waiting"


def _since(base: str) -> str:
    return f"luthier:places:{base}:since"
