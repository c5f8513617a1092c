"""Limits that several API processes share over a real Redis: one count, no race, and no refusal while it is down."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.domain.errors import RateLimited
from service.gateway.forward import EngineRequest, RequestCost
from service.gateway.limits import PerMinute, RateLimits
from service.gateway.limits import redis as of_limits
from service.gateway.limits.redis import RedisLimits
from service.queue import redis as of_redis
from service.queue.redis import RedisConnection
from tests.servers.valkey import Valkey

pytestmark = pytest.mark.slow
REQUESTS = PerMinute(requests=10)
TOKENS = PerMinute(requests=1000, tokens=1000)


@pytest.fixture
async def clients(own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[RedisConnection]]:
    """Two processes' clients. A Redis that is late counts as down: here later, for a busy machine."""
    monkeypatch.setattr(of_limits, "RESPONSE_SECONDS", 2.0)
    monkeypatch.setattr(of_redis, "CONNECT_SECONDS", 2.0)
    monkeypatch.setattr(of_redis, "RESPONSE_SECONDS", 2.0)
    clients = [RedisConnection(own_valkey.url) for _ in range(2)]
    yield clients
    for client in clients:
        await client.close()


def asking(tokens: int = 1, key_id: str = "key_1") -> EngineRequest:
    return EngineRequest("completions", "proj_1", "tiny", "tiny", {}, key_id, tokens)


def cost(prompt: int | None, completion: int, reserved: int) -> RequestCost:
    return RequestCost(
        "completions", "proj_1", "key_1", "tiny", "tiny", False, "answered", prompt, completion, reserved, 0.1
    )


async def admitted(limits: RateLimits, request: EngineRequest) -> bool:
    try:
        await limits.admit(request, "acme")
    except RateLimited:
        return False
    return True


async def settled(limits: RedisLimits) -> None:
    await limits.settled()


async def test_of_many_requests_at_once_as_many_pass_as_the_limit_says(clients: list[RedisConnection]) -> None:
    one, other = (RedisLimits(REQUESTS, client) for client in clients)
    found = await asyncio.gather(*(admitted(limits, asking()) for _ in range(20) for limits in (one, other)))
    assert sum(found) == 10
    assert await admitted(one, asking(key_id="key_2"))


async def test_a_refusal_is_worded_as_in_one_process_and_costs_nothing(clients: list[RedisConnection]) -> None:
    one, other = (RedisLimits(TOKENS, client) for client in clients)
    await one.admit(asking(900), "acme")
    for limits in (one, other):
        with pytest.raises(
            RateLimited, match=r"on tokens per min \(TPM\): Limit 1000, Used (8\d\d|900), Requested 200"
        ) as told:
            await limits.admit(asking(200), "acme")
        assert told.value.retry_after_seconds is not None and 0 < told.value.retry_after_seconds <= 6
    assert other.standing("key_1")["requests"].remaining >= 999
    with pytest.raises(RateLimited, match="Request too large"):
        await other.admit(asking(1001), "acme")


async def test_the_other_process_knows_what_an_answer_really_cost(clients: list[RedisConnection]) -> None:
    one, other = (RedisLimits(TOKENS, client) for client in clients)
    await one.admit(asking(900), "acme")
    one.settle(cost(50, 50, reserved=900))
    assert one.standing("key_1")["tokens"].remaining >= 899  # at once, for the headers of this answer
    await settled(one)
    await other.admit(asking(800), "acme")
    assert 99 <= other.standing("key_1")["tokens"].remaining <= 160
    other.settle(cost(None, 0, reserved=800))
    await settled(other)
    assert not await admitted(one, asking(500))


async def test_an_answer_far_beyond_its_estimate_is_charged_up_to_two_limits(clients: list[RedisConnection]) -> None:
    limits = RedisLimits(TOKENS, clients[0])
    await limits.admit(asking(1), "acme")
    limits.settle(cost(10**6, 10**6, reserved=1))
    await settled(limits)
    with pytest.raises(RateLimited) as told:
        await limits.admit(asking(1), "acme")
    assert told.value.retry_after_seconds is not None
    assert 55 < told.value.retry_after_seconds <= 60.1


async def test_without_redis_everything_passes_and_nobody_speaks_of_limits(
    clients: list[RedisConnection], own_valkey: Valkey
) -> None:
    limits = RedisLimits(PerMinute(requests=1), clients[0])
    await limits.admit(asking(), "acme")
    assert not await admitted(limits, asking())
    own_valkey.kill()
    for _ in range(5):
        assert await admitted(limits, asking())
        limits.settle(cost(1, 1, reserved=1))
    assert limits.standing("key_1") == {}
    await asyncio.to_thread(own_valkey.start)
    async with asyncio.timeout(20):
        while await admitted(limits, asking()):  # what was counted before the kill is still there
            await asyncio.sleep(0.1)


async def test_a_redis_that_hangs_or_forgets_stops_no_request(
    clients: list[RedisConnection], own_valkey: Valkey
) -> None:
    limits = RedisLimits(PerMinute(requests=1), clients[0])
    await limits.admit(asking(), "acme")
    own_valkey.freeze()
    try:
        async with asyncio.timeout(5):
            assert await admitted(limits, asking())
    finally:
        own_valkey.thaw()
    own_valkey.flush()  # the script is forgotten, too
    other = RedisLimits(PerMinute(requests=1), clients[1])
    assert await admitted(other, asking())
    assert not await admitted(other, asking())


async def test_a_keys_counts_go_away_by_themselves(clients: list[RedisConnection]) -> None:
    await RedisLimits(TOKENS, clients[0]).admit(asking(5), "acme")
    keys = await clients[0].client.keys("*")
    assert len(keys) == 2
    assert all([0 < await clients[0].client.pttl(key) <= 120_000 for key in keys])


async def test_without_limits_redis_is_not_asked() -> None:
    nobody = RedisConnection("redis://127.0.0.1:1/0")
    limits = RedisLimits(PerMinute(), nobody)
    assert await admitted(limits, asking())
    assert limits.standing("key_1") == {}
