"""Requests that say a model alias while it is moved to and fro, and what came of them.

Used by a test with few requests and by `benchmarks/moving_alias.py` with many.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass

import httpx
from aiohttp import web

from tests.given.scripted_engine import ScriptedEngine

ALIAS = "support"
AT_ONCE = 16


@dataclass(frozen=True)
class Served:
    """How the requests ended: by status, by the model that the response names, by the one that the engine served."""

    statuses: Counter[int]
    named: Counter[str]
    by_engine: Counter[str]
    moves: int


async def names_itself(request: web.Request) -> web.StreamResponse:
    """An engine's response that says which model it was asked for."""
    model = (await request.json())["model"]
    choice = {"index": 0, "text": model, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return web.json_response(
        {"id": "c", "object": "text_completion", "created": 1, "model": model, "choices": [choice], "usage": usage}
    )


async def ask(client: httpx.AsyncClient, user: str | None = None, *, model: str = ALIAS) -> httpx.Response:
    """One completion of the alias."""
    body = {"model": model, "prompt": "Hello"} | ({} if user is None else {"user": user})
    return await client.post("/completions", json=body)


async def ask_during_moves(
    client: httpx.AsyncClient, engine: ScriptedEngine, models: tuple[str, str], *, requests: int, moves: int
) -> Served:
    """`requests` of the alias, `AT_ONCE` at a time, while it is promoted and rolled back `moves` times in between."""
    engine.script = names_itself
    engine.seen.clear()
    statuses: Counter[int] = Counter()
    named: Counter[str] = Counter()
    left = iter(range(requests))
    moved = 0

    async def send() -> None:
        for _ in left:
            response = await ask(client)
            statuses[response.status_code] += 1
            if response.status_code == 200:
                named[response.json()["model"]] += 1

    async def move() -> None:
        nonlocal moved
        path = f"/model_aliases/{ALIAS}"
        for number in range(moves):
            while sum(statuses.values()) < number * requests // moves:
                await asyncio.sleep(0.001)
            back = number % 2 == 1
            response = await client.post(
                f"{path}/rollback" if back else f"{path}/promote", json={} if back else {"model": models[1]}
            )
            assert response.status_code == 200, response.text
            assert response.json()["model"] == models[0 if back else 1]
            moved += 1

    async with asyncio.TaskGroup() as group, asyncio.timeout(600):
        group.create_task(move())
        for _ in range(AT_ONCE):
            group.create_task(send())
    return Served(statuses, named, Counter(one["model"] for one in engine.seen), moved)
