"""Real engines of several bases: each serves its own, and what a killed one served another replica takes over."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import openai
import pytest

from service.api.app import create_app
from service.installation.create import create_context
from service.operations import keys
from service.processes.child import ChildProcess, kill_group
from service.processes.forks import start_fork
from service.recipes.base import Base
from service.settings.settings import Settings
from tests.given.installation import give_schema
from tests.given.running_service import answers, free_ports, running, wait_for, write_catalogue
from tests.given.tiny_models import make_tiny_base

pytestmark = pytest.mark.slow
START_SECONDS = 120.0


@asynccontextmanager
async def engine(folder: Path, catalogue: Path, base: str, port: int) -> AsyncIterator[ChildProcess]:
    """A started engine of `base`; it has not answered yet."""
    settings = {"DATA_DIR": str(folder), "CATALOGUE": str(catalogue), "ENGINE_PORT": str(port), "ENGINE_THREADS": "1"}
    settings |= {"ENGINE_API_KEY": "off"}
    process = await start_fork(
        [sys.executable, "-m", "workers", "engine", "--die-with-parent", "--base", base],
        os.environ | {f"LUTHIER_{name}": value for name, value in settings.items()},
    )
    try:
        yield process
    finally:
        kill_group(process)
        await process.wait()


def two_bases(folder: Path) -> list[Base]:
    return [make_tiny_base(folder / id, seed).model_copy(update={"id": id}) for seed, id in enumerate(["one", "two"])]


def served_at(base: Base, *ports: int) -> Base:
    urls = tuple(f"http://127.0.0.1:{port}" for port in ports)
    return base.model_copy(update={"serving": base.serving.model_copy(update={"engines": urls})})


@pytest.mark.usefixtures("forks")
async def test_what_a_killed_engine_served_another_takes_over(tmp_path: Path) -> None:
    ports = free_ports(3)
    one, two = two_bases(tmp_path)
    catalogue = write_catalogue(tmp_path / "bases.toml", served_at(one, *ports[:2]), served_at(two, ports[2]))
    settings = Settings(data_dir=tmp_path / "data", catalogue=catalogue)
    await give_schema(settings)
    ctx = create_context(settings)
    key = await keys.ensure_installation(ctx)
    app = create_app(ctx)
    transport = httpx.ASGITransport(app)
    async with AsyncExitStack() as started:
        processes = [
            await started.enter_async_context(engine(tmp_path / "data", catalogue, base, port))
            for base, port in zip(["one", "one", "two"], ports, strict=True)
        ]
        for port in ports:
            wait_for(lambda port=port: answers(f"http://127.0.0.1:{port}/health"), START_SECONDS, f"port {port}")  # type: ignore[misc]
        async with httpx.AsyncClient(
            transport=transport, base_url="http://luthier", headers={"Authorization": f"Bearer {key}"}, timeout=60
        ) as client:

            async def ask(model: str) -> httpx.Response:
                body = {"model": model, "prompt": "Once", "max_tokens": 2, "temperature": 0}
                return await client.post("/v1/completions", json=body)

            before = [(await ask("one")).json()["choices"][0]["text"], (await ask("two")).json()["choices"][0]["text"]]
            assert before[0] != before[1]  # other weights
            home = ctx.gateway._replicas["one"].order("one")[0]
            kill_group(processes[ports.index(int(home.rpartition(":")[2]))])
            await asyncio.to_thread(wait_for, lambda: not answers(f"{home}/health"), 20, "the engine's end")
            for _ in range(4):
                assert (await ask("one")).json()["choices"][0]["text"] == before[0]
            engines = (await client.get("/health")).json()["engines"]
            assert engines.pop(home) == "unavailable"
            assert set(engines.values()) == {"ok"} and len(engines) == 2
            kill_group(processes[2])
            await asyncio.wait_for(processes[2].wait(), 20)
            assert (await ask("two")).status_code == 503
            assert (await ask("one")).status_code == 200
    await ctx.close()


def test_up_serves_every_base_of_the_catalogue(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "bases.toml", *two_bases(tmp_path))
    with running(tmp_path / "service", catalogue=catalogue, engine_threads=1) as service:
        client = service.client()
        wait_for(lambda: answers(f"http://127.0.0.1:{service.engine_port + 1}/health"), START_SECONDS, "second engine")
        texts = [
            client.completions.create(model=name, prompt="Once", max_tokens=2, temperature=0).choices[0].text
            for name in ("one", "two")
        ]
        assert texts[0] != texts[1]
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="three", prompt="Once")
        assert len(service.processes("workers engine")) == 2
        assert service.stop() == 0
