"""The production set on one machine, without containers: API, two workers, an engine, Postgres, Valkey and radosgw.

Each process has a data folder of its own, as if it stood on a machine of its own; they share the three servers and
nothing else. The engine is the embedded one or a real vLLM.
"""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from openai import OpenAI
from sqlalchemy import select

from service.bootstrap import create_context
from service.db.tables import file_segments
from service.domain.base import Base
from service.operations.context import Context
from service.orphans import OrphanSweep
from service.settings import Settings
from tests.faults.processes import Process
from tests.running_service import answers, free_ports, wait_for, write_catalogue
from tests.servers.postgres import Postgres
from tests.servers.radosgw import Radosgw
from tests.servers.valkey import Valkey

START_SECONDS = 180.0
LEASE_SECONDS = 4.0
SWEEP_SECONDS = 1.0


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
        """Removes stored bytes that no row names, however young; answers what of files is left without a row."""
        return asyncio.run(self._sweep_orphans())

    async def _sweep_orphans(self) -> set[str]:
        ctx = self.context()
        young = replace(ctx, settings=ctx.settings.model_copy(update={"orphan_age_seconds": 0}))
        try:
            await OrphanSweep(young).sweep()
            stored = {found.key async for found in ctx.storage.list("files/")}
            async with ctx.database.reading() as tx:
                named = set((await tx.connection.execute(select(file_segments.c.key))).scalars())
            return stored - named
        finally:
            await ctx.close()

    def forget_engine_cache(self) -> None:
        """The engine's machine is a new one: nothing of what it had fetched is there."""
        shutil.rmtree(Path(self.engine.environment["LUTHIER_DATA_DIR"]) / "scratch", ignore_errors=True)

    def logs(self) -> str:
        """The end of every process's log."""
        return "\n".join(
            f"--- {process.name}\n{process.log.read_text(errors='replace')[-3000:]}" for process in self.processes
        )


@contextmanager
def production(folder: Path, base: Base, engine: str = "engine", **settings: object) -> Iterator[Production]:
    """Starts everything and ends it, whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # PostgreSQL does not run as root
    with ExitStack() as running:
        servers = (Postgres(folder / "postgres"), Valkey(folder / "valkey"), Radosgw(folder / "radosgw"))
        for server in servers:
            running.callback(server.kill)
            server.start()
        made = _arrange(folder, base, engine, servers, settings)
        for process in made.processes:
            running.callback(process.kill_all)
        _migrate(made)
        for process in made.processes:
            process.start()
        try:
            made.wait_ready()
            yield made
        except BaseException:
            print(made.logs())  # noqa: T201
            raise


def _arrange(
    folder: Path, base: Base, engine: str, servers: tuple[Postgres, Valkey, Radosgw], settings: dict[str, object]
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
        "LUTHIER_LEASE_SECONDS": str(LEASE_SECONDS),
        "LUTHIER_SWEEP_SECONDS": str(SWEEP_SECONDS),
        "LUTHIER_SNAPSHOT_STEPS": "10",
        "LUTHIER_CRASH_LIMIT": "1000",  # kills by a fault are not the job's fault
        "LUTHIER_SLOTS": "2",
        "LUTHIER_TRAINER_THREADS": "1",
        "LUTHIER_ENGINE_THREADS": "1",
    } | {f"LUTHIER_{name.upper()}": str(value) for name, value in settings.items()}

    def process(name: str, *arguments: str) -> Process:
        own = {"LUTHIER_DATA_DIR": str(folder / name), "OMP_WAIT_POLICY": "PASSIVE"}
        return Process(name, ["-m", *arguments], environment | own, folder / f"{name}.log")

    return Production(
        folder=folder,
        environment=environment,
        postgres=postgres,
        valkey=valkey,
        radosgw=radosgw,
        api=process("api", "service", "serve"),
        workers=[process("worker-1", "workers", "train"), process("worker-2", "workers", "train")],
        engine=process("engine", "workers", engine),
        api_url=f"http://127.0.0.1:{api_port}",
        engine_url=f"http://127.0.0.1:{engine_port}",
    )


def _migrate(made: Production) -> None:
    """`luthierd migrate` and `luthierd keys create`, as the operator would."""
    for arguments in (["migrate"], ["keys", "create"]):
        command = Process("luthierd", ["-m", "service", *arguments], made.api.environment, made.folder / "luthierd.log")
        command.start()
        assert command.popen is not None
        assert command.popen.wait(60) == 0, command.log.read_text()
    made.key = made.folder.joinpath("luthierd.log").read_text().split()[-1]
