"""Projects take turns for the places of an engine: counted by what is admitted when, without a clock."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.domain.errors import RateLimited
from service.gateway.forward import EngineRequest
from service.gateway.places import Capacity, MemoryPlaces, Places, RedisPlaces, Release
from service.queue.redis import RedisConnection, end
from tests.servers.valkey import Valkey

LONG = 60.0


def capacity(places: int = 8, requests: int = 1000, wait_seconds: float = LONG) -> Capacity:
    return Capacity({"tiny": places}, requests, wait_seconds)


def asking(project: str, sequences: int = 1, base: str = "tiny") -> EngineRequest:
    return EngineRequest("completions", project, base, base, {}, sequences=sequences)


class Crowd:
    """Requests that have been admitted, in order; each ends when the test says so."""

    def __init__(self, *places: Places) -> None:
        self._places = places
        self._tasks: list[asyncio.Task[None]] = []
        self.admitted: list[str] = []
        self.releases: dict[str, list[Release]] = {}

    def send(self, project: str, count: int = 1, sequences: int = 1) -> list[asyncio.Task[None]]:
        made = [asyncio.create_task(self._take(project, sequences, number)) for number in range(count)]
        self._tasks += made
        return made

    async def _take(self, project: str, sequences: int, number: int) -> None:
        release = await self._places[number % len(self._places)].take(asking(project, sequences))
        self.admitted.append(project)
        self.releases.setdefault(project, []).append(release)

    def end(self, project: str) -> None:
        self.releases[project].pop(0)()

    async def count(self, project: str, expected: int) -> None:
        """Waits until as many were admitted as expected, and a moment for one too many."""
        async with asyncio.timeout(10):
            while self.admitted.count(project) < expected:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.01)
        assert self.admitted.count(project) == expected

    async def close(self) -> None:
        await end(*self._tasks)
        for releases in self.releases.values():
            for release in releases:
                release()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.slow)])
async def crowd(request: pytest.FixtureRequest) -> AsyncIterator[Crowd]:
    """Eight places: of one process, or of two that share them."""
    if request.param == "memory":
        crowd = Crowd(MemoryPlaces(capacity()))
        yield crowd
        await crowd.close()
        return
    valkey: Valkey = request.getfixturevalue("own_valkey")
    clients = [RedisConnection(valkey.url) for _ in range(2)]
    crowd = Crowd(*(RedisPlaces(capacity(), client, MemoryPlaces(capacity())) for client in clients))
    yield crowd
    await crowd.close()
    await asyncio.sleep(0.05)
    for client in clients:
        await client.close()


async def test_a_project_with_200_requests_leaves_room_for_anothers(crowd: Crowd) -> None:
    crowd.send("busy", 200)
    await crowd.count("busy", 6)
    crowd.send("other", 2)
    await crowd.count("other", 2)
    crowd.end("other")
    crowd.send("other")
    await crowd.count("other", 3)
    assert crowd.admitted.count("busy") == 6


async def test_requests_of_many_sequences_weigh_as_much(crowd: Crowd) -> None:
    crowd.send("busy", 12, sequences=128)
    await crowd.count("busy", 1)
    crowd.send("other")
    await crowd.count("other", 1)
    crowd.end("busy")
    await crowd.count("busy", 2)


async def test_who_holds_the_fewest_is_next(crowd: Crowd) -> None:
    crowd.send("a", 20)
    await crowd.count("a", 6)
    crowd.send("b", 20)
    await crowd.count("b", 2)
    for expected in (3, 4):
        crowd.end("a")
        await crowd.count("b", expected)
    crowd.end("b")  # three to four: it is b's turn still
    await crowd.count("b", 5)
    assert crowd.admitted.count("a") == 6


async def test_a_large_request_is_not_overtaken_for_ever(crowd: Crowd) -> None:
    crowd.send("small", 6)
    await crowd.count("small", 6)
    crowd.send("large", sequences=6)
    await asyncio.sleep(0.1)
    crowd.send("small", 20)
    await asyncio.sleep(0.1)
    for _ in range(4):
        crowd.end("small")
    await crowd.count("large", 1)
    assert crowd.admitted.count("small") == 6


async def test_who_stops_waiting_frees_the_line(crowd: Crowd) -> None:
    crowd.send("a", 6)
    await crowd.count("a", 6)
    (large,) = crowd.send("b", sequences=6)
    await asyncio.sleep(0.1)
    crowd.send("c", 2)
    await asyncio.sleep(0.1)
    assert "c" not in crowd.admitted
    large.cancel()
    await crowd.count("c", 2)


async def test_a_project_may_have_so_many_requests_and_no_more() -> None:
    places = MemoryPlaces(capacity(requests=3))
    releases = [await places.take(asking("a")) for _ in range(3)]
    with pytest.raises(RateLimited, match="3 requests in progress"):
        await places.take(asking("a"))
    await places.take(asking("b"))
    releases[0]()
    releases[0]()
    await places.take(asking("a"))
    with pytest.raises(RateLimited):
        await places.take(asking("a"))


@pytest.fixture
async def clients(own_valkey: Valkey) -> AsyncIterator[list[RedisConnection]]:
    """Two processes' clients."""
    clients = [RedisConnection(own_valkey.url) for _ in range(2)]
    yield clients
    await asyncio.sleep(0.05)  # what is being removed
    for client in clients:
        await client.close()


@pytest.mark.slow
async def test_a_projects_requests_are_counted_over_all_processes(clients: list[RedisConnection]) -> None:
    key, redis = "luthier:places:a:requests", clients[0].client
    first, second = (RedisPlaces(capacity(requests=3), client, MemoryPlaces(capacity())) for client in clients)
    releases = [await places.take(asking("a")) for places in (first, second, first)]
    for places in (first, second):
        with pytest.raises(RateLimited, match="3 requests in progress"):
            await places.take(asking("a"))
    releases.append(await second.take(asking("b")))
    assert 0 < await redis.ttl(key) <= 60  # of a killed process nothing stays
    releases[0]()
    releases[0]()
    async with asyncio.timeout(10):
        while await redis.zcard(key) == 3:
            await asyncio.sleep(0.01)
    releases.append(await second.take(asking("a")))
    with pytest.raises(RateLimited):
        await first.take(asking("a"))
    for release in releases:
        release()
    async with asyncio.timeout(10):
        while await redis.zcard(key):
            await asyncio.sleep(0.01)


async def test_without_redis_a_process_counts_alone() -> None:
    client = RedisConnection("redis://127.0.0.1:1")
    places = RedisPlaces(capacity(requests=2), client, MemoryPlaces(capacity()))
    releases = [await places.take(asking("a")) for _ in range(2)]
    with pytest.raises(RateLimited, match="2 requests in progress"):
        await places.take(asking("a"))
    releases[0]()
    (await places.take(asking("a")))()
    await client.close()


async def test_a_turn_that_does_not_come_is_a_429_and_leaves_nothing() -> None:
    places = MemoryPlaces(capacity(places=1, wait_seconds=0.05))
    release = await places.take(asking("a"))
    with pytest.raises(RateLimited, match=r"within 0\.05 seconds"):
        await places.take(asking("b"))
    release()
    (await places.take(asking("b")))()


async def test_bases_have_places_of_their_own() -> None:
    places = MemoryPlaces(Capacity({"tiny": 1, "large": 1}, 10, LONG))
    await places.take(asking("a", base="tiny"))
    await places.take(asking("a", base="large"))
