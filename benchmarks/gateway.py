"""What the gateway adds to a completion: the same requests straight to an engine, and through the API.

    python -m benchmarks.gateway [--requests 2000] > benchmarks/gateway.txt

The engine is an HTTP server that responds at once, in a process of its own; the API is `luthierd serve` on SQLite, as
users run it. One client and 32 clients at a time ask in turns, in rounds, so that what else the machine does meets all
of them. CPU is that of the API's process alone. A base and a tuned model are asked for; both names go to the same
engine.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

from service.db import schema
from service.installation.create import opened
from service.operations import files, jobs, keys
from service.settings.settings import Settings
from service.storage.base import one_chunk
from tests.given.journey import rows
from tests.given.running_service import ROOT, answers, free_ports, wait_for
from tests.given.scripted_engine import scripted_engine
from tests.given.stored_models import add_model

TUNED = "ft:luthier-tiny:luthier::BENCHMRK"
ROUNDS = 5
BODY = {"messages": [{"role": "user", "content": "Where is my parcel?"}], "max_tokens": 16}


@dataclass
class Asked:
    """One way to ask: seconds of each request, by the number of clients; and the API's CPU seconds."""

    name: str
    url: str
    model: str
    seconds: dict[int, list[float]] = field(default_factory=dict)
    wall: dict[int, float] = field(default_factory=dict)
    cpu: dict[int, float] = field(default_factory=dict)


async def main(requests: int) -> None:
    async with engine_process() as engine, api_process(engine) as (api, key, process):
        ways = [
            Asked("straight to the engine", f"{engine}/v1", "luthier-tiny"),
            Asked("through the API, a base", f"{api}/v1", "luthier-tiny"),
            Asked("through the API, a tuned model", f"{api}/v1", TUNED),
        ]
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=64)) as session:
            for way in ways:  # connections, caches
                await ask(session, way, 1, 50, process, keep=False)
            for _ in range(ROUNDS):
                for clients in (1, 32):
                    for way in ways:
                        await ask(session, way, clients, requests // ROUNDS, process)
        report(ways)


async def ask(
    session: aiohttp.ClientSession, way: Asked, clients: int, count: int, api: psutil.Process, *, keep: bool = True
) -> None:
    """`count` requests by so many clients at a time, each waiting for its response."""
    seconds: list[float] = []
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            started_at = time.perf_counter()
            async with session.post(f"{way.url}/chat/completions", json={"model": way.model, **BODY}) as response:
                await response.read()
                assert response.status == 200, await response.text()
            seconds.append(time.perf_counter() - started_at)

    cpu, started_at = cpu_seconds(api), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    if keep:
        way.seconds.setdefault(clients, []).extend(seconds)
        way.wall[clients] = way.wall.get(clients, 0.0) + time.perf_counter() - started_at
        way.cpu[clients] = way.cpu.get(clients, 0.0) + cpu_seconds(api) - cpu


def report(ways: Sequence[Asked]) -> None:
    print(f"python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {ROUNDS} rounds")
    for clients in (1, 32):
        print(f"\n{clients} at a time" + " " * 22 + "p50 ms   p99 ms   requests/s   CPU ms of the API")
        for way in ways:
            found = way.seconds[clients]
            cpu = way.cpu[clients] / len(found) * 1e3
            print(
                f"{way.name:32}{statistics.median(found) * 1e3:8.2f}{quantile(found, 0.99) * 1e3:9.2f}"
                f"{len(found) / way.wall[clients]:13.0f}{cpu:20.2f}"
            )


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def cpu_seconds(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


@asynccontextmanager
async def engine_process() -> AsyncIterator[str]:
    (port,) = free_ports(1)
    with subprocess.Popen(  # noqa: ASYNC220  nothing else runs yet
        [sys.executable, "-m", "benchmarks.gateway", "--engine", str(port)], cwd=ROOT
    ) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            await asyncio.to_thread(wait_for, lambda: answers(f"{url}/health"), 30, "the engine")
            yield url
        finally:
            process.kill()


@asynccontextmanager
async def api_process(engine: str) -> AsyncIterator[tuple[str, str, psutil.Process]]:
    """The API on a fresh installation that has one tuned model: its URL, a key, its process."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), engine_urls=engine)
        async with opened(settings) as ctx:
            await schema.migrate(ctx.database)
            key = await keys.ensure_installation(ctx)
            assert key is not None
            caller = await keys.authenticate(ctx, key)
            async with files.incoming(ctx) as incoming:
                await incoming.store(one_chunk(rows(12)))
                file = await incoming.create(caller, files.NewFile("a.jsonl", "fine-tune"))
            job = await jobs.create(ctx, caller, jobs.NewJob(model="luthier-tiny", training_file=file.id, seed=1))
            await add_model(ctx, caller, job.job.id, TUNED, kind="final")
        (port,) = free_ports(1)
        variables = {"DATA_DIR": folder, "ENGINE_URLS": engine, "PORT": str(port), "PROJECT_REQUESTS": "1000"}
        environment = os.environ | {f"LUTHIER_{name}": value for name, value in variables.items()}
        command = [sys.executable, "-m", "service", "serve"]
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sys.stderr) as process:  # noqa: ASYNC220
            url = f"http://127.0.0.1:{port}"
            try:
                await asyncio.to_thread(wait_for, lambda: answers(f"{url}/health"), 60, "the API")
                yield url, key, psutil.Process(process.pid)
            finally:
                process.kill()


async def be_engine(port: int) -> None:
    async with scripted_engine(port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--engine", type=int)
    arguments = parser.parse_args()
    asyncio.run(be_engine(arguments.engine) if arguments.engine else main(arguments.requests))
