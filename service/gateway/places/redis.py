"""The places of several API processes, in Redis; without Redis, those of this process.

The rule is that of `memory`. A project's requests are counted over all processes, waiting ones included. Of each
project and base one request per process asks, again and again, until one Redis script admits it; the project's others
wait in line behind it. What is counted and held expires unless its process renews it, so that what a killed process
had returns. Does not use HTTP.
"""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from service.gateway.forward import EngineRequest
from service.gateway.places.base import Capacity, Release, too_late, too_many
from service.gateway.places.memory import MemoryPlaces, RequestCounts
from service.queue.redis import UNAVAILABLE, RedisConnection

log = structlog.get_logger()
RESPONSE_SECONDS = 0.5
ASK_SECONDS = 0.05
HELD_SECONDS = 15.0
RENEW_SECONDS = 5.0
WAITING_SECONDS = 1.0  # how long a project counts as waiting after it has asked
KEPT_SECONDS = 60  # how long Redis keeps a key that nobody renews

# KEYS: a project's requests. ARGV: limit, members. Returns how many of them, from the first on, were counted.
COUNT = f"""
local now = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now[1])
local room = tonumber(ARGV[1]) - redis.call('ZCARD', KEYS[1])
local counted = math.max(0, math.min(room, #ARGV - 1))
for number = 2, counted + 1 do redis.call('ZADD', KEYS[1], now[1] + {HELD_SECONDS}, ARGV[number]) end
redis.call('EXPIRE', KEYS[1], {KEPT_SECONDS})
return counted
"""

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

# KEYS: what is held, or a project's requests. ARGV: members, which this process still has.
RENEW = f"""
local now = redis.call('TIME')
for _, member in ipairs(ARGV) do redis.call('ZADD', KEYS[1], now[1] + {HELD_SECONDS}, member) end
redis.call('EXPIRE', KEYS[1], {KEPT_SECONDS})
"""


class RedisPlaces:
    """`Places` over all API processes."""

    def __init__(self, capacity: Capacity, redis: RedisConnection, alone: MemoryPlaces) -> None:
        """`alone` is used while Redis is unavailable."""
        self._capacity = capacity
        self._client = redis.client
        self._count = redis.client.register_script(COUNT)
        self._enter = redis.client.register_script(ENTER)
        self._renew = redis.client.register_script(RENEW)
        self._alone = alone
        self._requests = RequestCounts(capacity.requests_per_project)  # of this process: no more than of all
        self._lines: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._held: dict[str, set[str]] = {}  # by key in Redis
        self._asking: dict[str, dict[str, asyncio.Future[bool | None]]] = {}  # to be counted: by key, then member
        self._leaving: dict[str, set[str]] = {}
        self._left = asyncio.Event()
        self._counting: asyncio.Task[None] | None = None
        self._removing: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def take(self, request: EngineRequest) -> Release:
        with self._requests.counted(request.project_id) as counted:
            key, member = _requests(request.project_id), secrets.token_hex(8)
            if not await self._counted(key, member):
                return counted.until(await self._alone.enter(request))
            async with self._removed_on_error(key, member):
                release = await self._in_turn(request)

            def end() -> None:
                release()
                self._leave(key, member)

            return counted.until(end)

    @asynccontextmanager
    async def _removed_on_error(self, key: str, member: str) -> AsyncIterator[None]:
        """Removes the member again where the block raises: it may be in Redis although nothing said so."""
        try:
            yield
        except BaseException:
            self._leave(key, member)
            raise

    async def _counted(self, key: str, member: str) -> bool:
        """Counts a request of a project; False when Redis is unavailable. Raises RateLimited."""
        answer: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        self._asking.setdefault(key, {})[member] = answer
        self._keep_counting()
        async with self._removed_on_error(key, member):
            found = await answer
        if found is None:
            return False  # if it was counted, that expires
        if not found:
            raise too_many(self._capacity.requests_per_project)
        self._keep(key, member)
        return True

    async def _count_all(self) -> None:
        """One call at a time, for all of a project that came meanwhile: a crowd takes no crowd of connections."""
        while self._asking:
            key, asked = self._asking.popitem()
            counted = None
            try:
                counted = await self._count_some(key, list(asked))
            finally:  # nobody waits for a call that is over, however it ended
                for number, (member, answer) in enumerate(asked.items()):
                    if not answer.done():
                        answer.set_result(None if counted is None else number < counted)
                    else:  # cancelled meanwhile
                        self._leave(key, member)

    def _keep_counting(self, *_: object) -> None:
        if self._asking and (self._counting is None or self._counting.done()):
            self._counting = asyncio.create_task(self._count_all())
            self._counting.add_done_callback(self._keep_counting)

    async def _count_some(self, key: str, members: list[str]) -> int | None:
        """How many were counted; None when Redis is unavailable."""
        try:
            async with asyncio.timeout(RESPONSE_SECONDS):
                return int(await self._count(keys=[key], args=[self._capacity.requests_per_project, *members]))
        except UNAVAILABLE as error:
            log.warning("places.unavailable", reason=type(error).__name__)
            return None

    async def _in_turn(self, request: EngineRequest) -> Release:
        key, weight = _held(request.base), self._capacity.weight(request)
        member = f"{request.project_id} {weight} {secrets.token_hex(8)}"
        async with self._removed_on_error(key, member):
            try:
                async with (
                    asyncio.timeout(self._capacity.wait_seconds),
                    self._lines[request.project_id, request.base],
                ):
                    admitted = await self._admitted(request, weight, member)
            except TimeoutError:
                raise too_late(self._capacity.wait_seconds) from None
        return (lambda: self._leave(key, member)) if admitted else await self._alone.enter(request)

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
                self._keep(_held(base), member)
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_SECONDS):
                    await self._left.wait()

    def _keep(self, key: str, member: str) -> None:
        """From now on renewed, until it leaves."""
        self._held.setdefault(key, set()).add(member)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew_held())

    def _leave(self, key: str, member: str) -> None:
        if key in self._held:
            self._held[key].discard(member)
            if not self._held[key]:
                del self._held[key]
        self._left.set()
        self._leaving.setdefault(key, set()).add(member)
        if self._removing is None or self._removing.done():
            self._removing = asyncio.create_task(self._remove_all())

    async def _remove_all(self) -> None:
        while self._leaving:
            key, members = self._leaving.popitem()
            try:
                await self._client.zrem(key, *members)
            except UNAVAILABLE as error:
                log.warning("places.unavailable", reason=type(error).__name__)  # they expire

    async def _renew_held(self) -> None:
        """Until nothing is held any more."""
        renewed_at = time.monotonic()
        while self._held:
            await asyncio.sleep(RENEW_SECONDS - min(RENEW_SECONDS, time.monotonic() - renewed_at))
            renewed_at = time.monotonic()
            for key, members in list(self._held.items()):
                await self._renew_key(key, list(members))

    async def _renew_key(self, key: str, members: list[str]) -> None:
        if not members:  # they have left meanwhile
            return
        try:
            await self._renew(keys=[key], args=members)
        except UNAVAILABLE as error:
            log.warning("places.unavailable", reason=type(error).__name__)


def _requests(project: str) -> str:
    return f"luthier:places:{project}:requests"


def _held(base: str) -> str:
    return f"luthier:places:{base}:held"


def _waiting(base: str) -> str:
    return f"luthier:places:{base}:waiting"


def _since(base: str) -> str:
    return f"luthier:places:{base}:since"
