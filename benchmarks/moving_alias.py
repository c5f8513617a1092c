"""Requests of a model alias while it is moved: each served by exactly one of the two models, none failed; and a canary.

    python -m benchmarks.moving_alias [--requests 10000] [--moves 50] > benchmarks/moving_alias.txt

The API in this process on SQLite, and a scripted engine behind it over HTTP that says which model it was asked for.
"""

import argparse
import asyncio
import logging
import math
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import structlog

from service.api.app import create_app
from service.installation.context import Context
from service.operations import keys, model_aliases
from service.settings.settings import Settings
from tests.given.installation import installed
from tests.given.moving_alias import ALIAS, ask, ask_during_moves
from tests.given.scripted_engine import ScriptedEngine, scripted_engine
from tests.given.stored_jobs import add_job
from tests.given.stored_models import add_model

MODELS = ("ft:luthier-tiny:luthier:x:AAAAAAAA", "ft:luthier-tiny:luthier:x:BBBBBBBB")
WEIGHT = 0.1


async def main() -> None:
    """Prints what came of the requests; raises AssertionError where one was lost or served twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--moves", type=int, default=50)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        async with scripted_engine() as engine:
            settings = Settings(data_dir=Path(folder) / "data", engine_urls=engine.url)
            async with installed(settings) as ctx:
                await measure(ctx, engine, asked.requests, asked.moves)


async def measure(ctx: Context, engine: ScriptedEngine, requests: int, moves: int) -> None:
    key = await keys.ensure_installation(ctx)
    assert key is not None
    caller = await keys.authenticate(ctx, key)
    job = await add_job(ctx, caller)
    for name in MODELS:
        await add_model(ctx, caller, job.id, name, kind="final")
    await model_aliases.create(ctx, caller, ALIAS, MODELS[0])
    transport = httpx.ASGITransport(create_app(ctx))
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://luthier/v1", headers=headers) as client:
        began = time.process_time()
        served = await ask_during_moves(client, engine, MODELS, requests=requests, moves=moves)
        seconds = time.process_time() - began
        print(f"{requests} requests during {served.moves} promotions and rollbacks")
        print(f"  statuses {dict(served.statuses)}")
        for name in MODELS:
            print(
                f"  {name}: named by {served.named[name]} responses, asked of the engine {served.by_engine[name]} times"
            )
        print(f"  CPU milliseconds per request, engine and client included: {1000 * seconds / requests:.1f}")
        assert served.statuses == {200: requests} and served.named == served.by_engine
        await _canary(client, min(requests, 2000))


async def _canary(client: httpx.AsyncClient, requests: int) -> None:
    body = {"model": MODELS[0], "candidate": {"model": MODELS[1], "weight": WEIGHT}}
    (await client.post(f"/model_aliases/{ALIAS}", json=body)).raise_for_status()
    named = Counter([(await ask(client, f"user-{number}")).json()["model"] for number in range(requests)])
    deviation = math.sqrt(requests * WEIGHT * (1 - WEIGHT))
    off = (named[MODELS[1]] - requests * WEIGHT) / deviation
    print(
        f"canary of {WEIGHT:.0%}, {requests} end users: {named[MODELS[1]]} of the candidate, {off:+.2f} deviations off"
    )


if __name__ == "__main__":
    asyncio.run(main())
