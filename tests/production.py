"""The production set on one machine, without containers: API, two workers, an engine, Postgres, Valkey and radosgw.

Each process has a data folder of its own, as if it stood on a machine of its own; they share the three servers and
nothing else. The engine is the embedded one or a real vLLM. Tests break it; `make production` runs it for people:

    python -m tests.production --engine vllm
"""

import argparse
import asyncio
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from openai import OpenAI

from service.installation.context import Context
from service.installation.create import create_context
from service.operations import keys
from service.operations.orphans import OrphanSweep
from service.recipes.base import Base, EngineKind, Serving
from service.recipes.catalogue import read_catalogue, served_by
from service.settings.settings import Settings
from tests.faults.processes import Process, kept_running
from tests.given.running_service import ROOT, answers, free_ports, wait_for, write_catalogue
from tests.given.stored_files import named_objects
from tests.servers.postgres import Postgres
from tests.servers.radosgw import Radosgw, check_radosgw
from tests.servers.valkey import Valkey
from tests.servers.vllm import ONE_PROCESS, vllm_python

START_SECONDS = 180.0
LEASE_SECONDS = 4.0
SWEEP_SECONDS = 1.0
FOR_PEOPLE = {"snapshot_steps": 100, "crash_limit": 3}  # nobody kills anything on purpose


@dataclass
class Production:
    """The running set; `environment` is what every process of ours reads."""

    folder: Path
    environment: dict[str, str]
    postgres: Postgres
    valkey: Valkey
    radosgw: Radosgw
    api: Process
    workers: list[Process]
    engine: Process
    api_url: str
    engine_url: str
    key: str = ""

    @property
    def processes(self) -> list[Process]:
        return [self.engine, *self.workers, self.api]

    def client(self, retries: int = 8) -> OpenAI:
        """The official SDK, patient enough to outlast a fault of a few seconds."""
        return OpenAI(base_url=f"{self.api_url}/v1", api_key=self.key, max_retries=retries, timeout=60)

    def wait_ready(self) -> None:
        for url in (self.api_url, self.engine_url):
            wait_for(lambda url=url: answers(f"{url}/health"), START_SECONDS, url)  # type: ignore[misc]

    def context(self) -> Context:
        """The parts, for a test that looks behind the API. Close it."""
        names = {name.removeprefix("LUTHIER_").lower(): value for name, value in self.environment.items()}
        return create_context(Settings(**{**names, "data_dir": self.folder / "test"}))

    def sweep_orphans(self) -> set[str]:
        """Removes stored bytes that no row names, however young; returns what of files is left without a row."""
        return asyncio.run(self._sweep_orphans())

    async def _sweep_orphans(self) -> set[str]:
        ctx = self.context()
        young = replace(ctx, settings=ctx.settings.model_copy(update={"orphan_age_seconds": 0}))
        try:
            await OrphanSweep(young).sweep()
            stored = {found.key async for found in ctx.storage.list("files/")}
            return stored - await named_objects(ctx)
        finally:
            await ctx.close()

    def forget_engine_cache(self) -> None:
        """The engine's machine is a new one: nothing of what it had fetched is there."""
        shutil.rmtree(Path(self.engine.environment["LUTHIER_DATA_DIR"]) / "scratch", ignore_errors=True)

    def lines_about(self, job_id: str) -> str:
        """What the processes' logs say of a job, and how each log ends."""
        about = [
            f"{process.name}: {line}"
            for process in self.processes
            for line in process.log.read_text(errors="replace").splitlines()
            if job_id in line
        ]
        return "\n".join([*about, self.logs()])

    def logs(self) -> str:
        """The end of every process's log."""
        return "\n".join(
            f"--- {process.name}\n{process.log.read_text(errors='replace')[-3000:]}" for process in self.processes
        )


@contextmanager
def production(folder: Path, base: Base, engine: EngineKind = "embedded", **settings: object) -> Iterator[Production]:
    """Starts everything and ends it, whatever happens. `engine` serves the base, whatever its entry says."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # PostgreSQL does not run as root
    with ExitStack() as running:
        servers = (Postgres(folder / "postgres"), Valkey(folder / "valkey"), Radosgw(folder / "radosgw"))
        for server in servers:
            running.callback(server.kill)
            server.start()
        made = _arrange(folder, _served_by(base, engine), servers, settings)
        for process in made.processes:
            running.callback(process.kill_all)
        with ThreadPoolExecutor(1) as apart:  # a test may be running a loop in this thread
            made.key = apart.submit(asyncio.run, _first_key(made)).result()
        for process in made.processes:
            process.start()
        running.enter_context(kept_running(made.processes))
        try:
            made.wait_ready()
            yield made
        except KeyboardInterrupt:
            raise
        except BaseException:
            print(made.logs())  # noqa: T201
            raise


def _served_by(base: Base, engine: EngineKind) -> Base:
    tunings = base.serving.tunings & set(served_by(engine))
    serving = Serving(engine=engine, tunings=tunings, max_rank=base.serving.max_rank)
    return base.model_copy(update={"serving": serving})


def _arrange(
    folder: Path, base: Base, servers: tuple[Postgres, Valkey, Radosgw], settings: dict[str, object]
) -> Production:
    postgres, valkey, radosgw = servers
    api_port, engine_port = free_ports(2)
    environment = {
        "LUTHIER_DATABASE_URL": postgres.new_database(),
        "LUTHIER_REDIS_URL": valkey.url,
        **{f"LUTHIER_{name.upper()}": value for name, value in radosgw.settings.items()},
        "LUTHIER_STORAGE_URL": radosgw.new_bucket(),
        "LUTHIER_CATALOGUE": str(write_catalogue(folder / "bases.toml", base)),
        "LUTHIER_PORT": str(api_port),
        "LUTHIER_ENGINE_PORT": str(engine_port),
        "LUTHIER_ENGINE_URLS": f"http://127.0.0.1:{engine_port}",
        "LUTHIER_ENGINE_API_KEY": "the-same-on-every-machine",
        "LUTHIER_LEASE_SECONDS": str(LEASE_SECONDS),
        "LUTHIER_SWEEP_SECONDS": str(SWEEP_SECONDS),
        "LUTHIER_SNAPSHOT_STEPS": "10",
        "LUTHIER_CRASH_LIMIT": "1000",  # kills by a fault are not the job's fault
        "LUTHIER_SLOTS": "2",
        "LUTHIER_TRAINER_THREADS": "1",
        "LUTHIER_ENGINE_THREADS": "1",
    } | {f"LUTHIER_{name.upper()}": str(value) for name, value in settings.items()}

    def process(name: str, *arguments: str, **more: str) -> Process:
        own = {"LUTHIER_DATA_DIR": str(folder / name), "OMP_WAIT_POLICY": "PASSIVE"} | more
        return Process(name, ["-m", *arguments], environment | own, folder / f"{name}.log")

    if base.serving.engine == "vllm":
        options = ["--max-num-seqs", "16", *ONE_PROCESS.split()]
        engine = process("engine", "workers", "vllm", "--", *options, **_vllm_environment())
    else:
        engine = process("engine", "workers", "engine")

    return Production(
        folder=folder,
        environment=environment,
        postgres=postgres,
        valkey=valkey,
        radosgw=radosgw,
        api=process("api", "service", "serve"),
        workers=[process("worker-1", "workers", "train"), process("worker-2", "workers", "train")],
        engine=engine,
        api_url=f"http://127.0.0.1:{api_port}",
        engine_url=f"http://127.0.0.1:{engine_port}",
    )


def _vllm_environment() -> dict[str, str]:
    return {
        "LUTHIER_VLLM_PYTHON": str(vllm_python()),
        "LUTHIER_VLLM_KV_CACHE_GIB": "1",
        "PYTHONPATH": str(ROOT),  # this code, not the copy that the installer put into vLLM's environment
        "OMP_NUM_THREADS": "1",
    }


async def _first_key(made: Production) -> str:
    """As the first `luthierd migrate` of a database whose schema is there."""
    ctx = made.context()
    try:
        key = await keys.ensure_installation(ctx)
    finally:
        await ctx.close()
    assert key is not None
    return key


def main() -> None:
    """Runs the set on the first base of the catalogue until Ctrl-C. Nothing of it is kept."""
    parser = argparse.ArgumentParser(description="Run the production set on this machine until Ctrl-C.")
    parser.add_argument("--engine", choices=("vllm", "embedded"), default="vllm")
    engine = parser.parse_args().engine
    base = next(iter(read_catalogue(Settings().catalogue).bases.values()))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        check_radosgw()
        with TemporaryDirectory(prefix="luthier-production-") as folder:
            print(f"Starting; the logs are in {folder}", flush=True)  # noqa: T201
            with production(Path(folder), base, engine, **FOR_PEOPLE) as made:
                _introduce(made, base)
                signal.pause()
    except (pytest.skip.Exception, pytest.fail.Exception) as missing:
        sys.exit(str(missing))
    except KeyboardInterrupt:
        print("\nEverything is stopped, and nothing of it is left.")  # noqa: T201


def _introduce(made: Production, base: Base) -> None:
    for name, value in (
        ("base URL", f"{made.api_url}/v1"),
        ("API key", made.key),
        ("base", base.id),
        ("engine", made.engine_url),
        ("logs", f"{made.folder}/*.log"),
    ):
        print(f"{name:10} {value}")  # noqa: T201
    print("Ctrl-C ends it.", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
