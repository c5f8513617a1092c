"""What the gateway adds to a completion: the same requests to an engine, through the API, through other proxies.

    python -m benchmarks.gateway [--minutes 5] [--requests 400] [--streams 100] [--nginx PATH] [--litellm PATH]

writes benchmarks/gateway.txt and .svg. The engine is an HTTP server that responds at once, in a process of its own;
the API is `luthierd serve` on SQLite, as users run it, asked for a base and for a tuned model. nginx as a plain proxy
and LiteLLM's proxy are those that `python -m benchmarks.gateway_peers` has installed, unless a path says otherwise; the
output names those that are missing. One client and 32 clients at a time ask in turns, in rounds, so that what else the
machine does meets all of them. CPU is that of the process in the middle. Streams are so many at once, each of an event
every 20 ms.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
from aiohttp import web

from benchmarks import gateway_peers
from benchmarks.bars import Spread, draw, machine
from service.db import schema
from service.installation.create import opened
from service.operations import files, jobs, keys
from service.settings.settings import Settings
from service.storage.base import one_chunk
from tests.given.journey import rows
from tests.given.running_service import ROOT, answers, free_ports, wait_for
from tests.given.scripted_engine import answers as responds_with
from tests.given.scripted_engine import scripted_engine
from tests.given.stored_models import add_model

OUTPUT = Path(__file__).parent
TUNED = "ft:luthier-tiny:luthier::BENCHMRK"
DIRECT = "straight to the engine"
CLIENTS = (1, 32)
EVENT_SECONDS = 0.02
EVENTS = 50  # of one stream
BODY = {"messages": [{"role": "user", "content": "Where is my parcel?"}], "max_tokens": 16}
WHOLE = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"luthier-tiny","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'
)
EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"luthier-tiny",'
    b'"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
)


@dataclass
class Way:
    """One way to ask, and what was measured of each round."""

    name: str
    url: str
    model: str
    key: str
    process: psutil.Process | None = None  # in the middle
    seconds: dict[int, list[float]] = field(default_factory=dict)  # of each request, by the number of clients
    rates: dict[int, list[float]] = field(default_factory=dict)  # requests per second
    cpu: dict[int, list[float]] = field(default_factory=dict)  # milliseconds per request
    events: list[float] = field(default_factory=list)  # per second, of all streams together

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


async def main(
    requests: int, streams: int, deadline: float, litellm: Path | None, output: Path, nginx: Path | None = None
) -> None:
    missing: list[str] = []
    async with AsyncExitStack() as opened_parts:
        engine = opened_parts.enter_context(engine_process())
        api, key, process = await opened_parts.enter_async_context(api_process(engine))
        ways = [
            Way(DIRECT, f"{engine}/v1", "luthier-tiny", key),
            Way("the API, a base", f"{api}/v1", "luthier-tiny", key, process),
            Way("the API, a tuned model", f"{api}/v1", TUNED, key, process),
        ]
        for name, program, serving in (
            ("nginx", nginx, gateway_peers.nginx),
            ("LiteLLM", litellm, gateway_peers.litellm),
        ):
            if program is None:
                missing.append(name)
                continue
            url, own_key, proxy = opened_parts.enter_context(serving(program, engine))
            ways.append(Way(name, url, "luthier-tiny", own_key, proxy))
        session = await opened_parts.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=streams + 64))
        )
        for way in ways:  # connections, caches
            await ask(session, way, 1, min(50, requests), keep=False)
        turn = 0
        while not turn or time.monotonic() < deadline:
            for clients in CLIENTS:
                for way in ways[:: 1 if turn % 2 else -1]:
                    await ask(session, way, clients, requests)
            for way in ways[:: 1 if turn % 2 else -1]:
                await stream(session, way, streams)
            turn += 1
    report(ways, missing, turn, streams, output)


async def ask(session: aiohttp.ClientSession, way: Way, clients: int, count: int, *, keep: bool = True) -> None:
    """`count` requests by so many clients at a time, each waiting for its response."""
    seconds: list[float] = []
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            began = time.perf_counter()
            body = {"model": way.model, **BODY}
            async with session.post(f"{way.url}/chat/completions", json=body, headers=way.headers) as response:
                await response.read()
                assert response.status == 200, await response.text()
            seconds.append(time.perf_counter() - began)

    cpu, began = cpu_seconds(way), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    if keep:
        way.seconds.setdefault(clients, []).extend(seconds)
        way.rates.setdefault(clients, []).append(count / (time.perf_counter() - began))
        way.cpu.setdefault(clients, []).append((cpu_seconds(way) - cpu) / count * 1e3)


async def stream(session: aiohttp.ClientSession, way: Way, streams: int) -> None:
    """So many streams at once, read to their ends."""

    async def client() -> int:
        body = {"model": way.model, "stream": True, **BODY}
        async with session.post(f"{way.url}/chat/completions", json=body, headers=way.headers) as response:
            assert response.status == 200, await response.text()
            return (await response.read()).count(b"data: {")

    began = time.perf_counter()
    found = await asyncio.gather(*(client() for _ in range(streams)))
    way.events.append(sum(found) / (time.perf_counter() - began))


def report(ways: Sequence[Way], missing: Sequence[str], rounds: int, streams: int, output: Path) -> None:
    lines = [machine(["uvicorn", "fastapi", "aiohttp"]), f"{rounds} rounds; median (least-most) of the rounds"]
    lines += [f"without {', '.join(missing)}: {gateway_peers.REMEDY}"] if missing else []
    direct = ways[0]
    for clients in CLIENTS:
        lines += ["", f"{clients} at a time" + " " * 14 + "p50 ms   added   p99 ms        requests/s            CPU ms"]
        base = Spread(direct.seconds[clients]).median
        for way in ways:
            p50 = Spread(way.seconds[clients]).median
            lines.append(
                f"{way.name:26}{p50 * 1e3:8.2f}{(p50 - base) * 1e3:8.2f}"
                f"{quantile(way.seconds[clients], 0.99) * 1e3:9.2f}"
                f"{Spread(way.rates[clients])!s:>26}{Spread(way.cpu[clients])!s:>26}"
            )
    lines += ["", f"{streams} streams at a time" + " " * 10 + "events/s     of direct"]
    for way in ways:
        share = Spread(way.events).median / Spread(direct.events).median
        lines.append(f"{way.name:26}{Spread(way.events)!s:>24}{share:8.2f}")
    text = "\n".join(lines) + "\n"
    (output / "gateway.txt").write_text(text, encoding="utf-8")
    print(text, end="")
    groups = {f"{clients} at a time": {way.name: Spread(way.rates[clients]) for way in ways} for clients in CLIENTS} | {
        f"events of {streams} streams": {way.name: Spread(way.events) for way in ways}
    }
    draw(output / "gateway.svg", "Completions through the gateway", "per second", groups)


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def cpu_seconds(way: Way) -> float:
    if way.process is None:
        return 0.0
    used = way.process.cpu_times()
    return float(used.user + used.system)


@contextmanager
def engine_process() -> Iterator[str]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "benchmarks.gateway", "--engine", str(port)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: answers(f"{url}/health"), 60, "the engine")
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
        variables["ENGINE_BATCH_ROWS"] = "1000"  # places of the engine: it has no limit
        environment = os.environ | {f"LUTHIER_{name}": value for name, value in variables.items()}
        command = [sys.executable, "-m", "service", "serve"]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)  # noqa: ASYNC220
            with process:
                url = f"http://127.0.0.1:{port}"
                try:
                    await asyncio.to_thread(wait_for, lambda: answers(f"{url}/livez"), 120, "the API")
                    yield url, key, psutil.Process(process.pid)
                finally:
                    process.kill()


async def be_engine(port: int) -> None:
    """Responds at once; a stream has an event every EVENT_SECONDS."""
    whole = responds_with(WHOLE)

    async def script(request: web.Request) -> web.StreamResponse:
        if not (await request.json()).get("stream"):
            return await whole(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(EVENTS):
            await response.write(EVENT)
            await asyncio.sleep(EVENT_SECONDS)
        await response.write(b"data: [DONE]\n\n")
        return response

    async with scripted_engine(port) as engine:
        engine.script = script
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--requests", type=int, default=400, help="of each way in each round")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--nginx", type=Path, default=gateway_peers.installed(gateway_peers.NGINX))
    parser.add_argument("--litellm", type=Path, default=gateway_peers.installed(gateway_peers.LITELLM))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--engine", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    until = time.monotonic() + 60 * asked.minutes
    if asked.engine:
        asyncio.run(be_engine(asked.engine))
    else:
        asyncio.run(main(asked.requests, asked.streams, until, asked.litellm, asked.output, asked.nginx))
