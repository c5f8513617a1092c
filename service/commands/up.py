"""`luthierd up`: one machine's children (API, worker, engines), each restarted with back-off, all ended together.

Children are told to end when their stdin does, so that not even `kill -9` of this process leaves one behind.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import structlog

from service.db import schema
from service.installation.create import create_context
from service.operations import keys
from service.recipes.catalogue import read_catalogue
from service.recipes.engines import engines_by_base, without_engines
from service.settings.settings import Settings
from service.storage import create_storage

log = structlog.get_logger()
KEY_FILE = "api-key"
STOP_SECONDS = 30.0
READY_SECONDS = 300.0
BACKOFF_SECONDS = (0.5, 1, 2, 5, 10)
STEADY_SECONDS = 60.0
CHILD_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # several processes share the cores: a thread that waits must not spin
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def run(settings: Settings) -> int:
    """Blocks until SIGINT or SIGTERM; answers the exit code."""
    return asyncio.run(_run(settings))


async def prepare(settings: Settings) -> None:
    """Migrates, and at the first start makes the installation's default project and a key, kept in the data folder."""
    ctx = create_context(settings)
    try:
        await schema.migrate(ctx.database)
        key = await keys.ensure_installation(ctx)
        key_file = settings.data_dir / KEY_FILE
        if key is None and not key_file.exists():
            key = await keys.create_key(ctx, "default", "project", "made by luthierd up")
        if key is not None:
            _keep_key(key_file, key)
    finally:
        await ctx.close()


def end_with_parent() -> None:
    """Ends this process when its stdin does: the parent is gone."""
    threading.Thread(target=_watch_stdin, daemon=True).start()


def _watch_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


def _check_ports(settings: Settings) -> None:
    """Raises ValueError, with what to do, where another process already listens."""
    engines = [("ENGINE_PORT", settings.engine_host, port) for port in _engines(settings)]
    for name, host, port in [("PORT", settings.host, settings.port), *engines]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise ValueError(
                    f"cannot listen on {host}:{port} ({error.strerror}); "
                    f"stop what runs there or set LUTHIER_{name} to a free port"
                ) from error


async def _check_storage(settings: Settings) -> None:
    """Raises StorageUnusable: said once here, instead of again and again by every child."""
    storage = create_storage(settings)
    try:
        await storage.check()
    finally:
        await storage.close()


def _engines(settings: Settings) -> dict[int, str]:
    """The engines that `up` starts: port -> base. One for each base that names no engines; none for vLLM's."""
    bases = without_engines(read_catalogue(settings.catalogue))
    ports = enumerate(bases, start=settings.engine_port)
    return {port: base.id for port, base in ports if base.serving.engine == "embedded"}


def _engine_urls(settings: Settings) -> list[str]:
    """Every engine of the installation."""
    found = engines_by_base(read_catalogue(settings.catalogue), settings.engines)
    return list(dict.fromkeys(url for urls in found.values() for url in urls))


def _keep_key(path: Path, key: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(key + "\n")
        stream.flush()
        os.fsync(stream.fileno())


async def _run(settings: Settings) -> int:
    _check_ports(settings)
    await _check_storage(settings)
    await prepare(settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    engine = ["-m", "workers", "engine", "--die-with-parent"]
    children = [
        *(
            Child("engine", [*engine, "--base", base], {"LUTHIER_ENGINE_PORT": str(port)})
            for port, base in _engines(settings).items()
        ),
        Child("worker", ["-m", "workers", "train", "--die-with-parent"]),
        Child("api", ["-m", "service", "serve", "--die-with-parent"]),
    ]
    keepers = [asyncio.create_task(child.keep()) for child in children]
    ready = asyncio.create_task(_announce(settings))
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({stopped, *keepers}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    for keeper in keepers:
        keeper.cancel()
    await asyncio.gather(*keepers, return_exceptions=True)
    for child in reversed(children):  # first nobody calls, then nobody trains, then nobody serves
        await child.stop()
    return 0 if stopped.done() else 1


@dataclass
class Child:
    """One process of this installation, in a process group of its own."""

    name: str
    arguments: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = field(default=None, init=False)

    async def keep(self) -> None:
        """Starts it, and again whenever it ends, waiting longer each time that it ends early."""
        failures = 0
        while True:
            started = time.monotonic()
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self.arguments,
                stdin=asyncio.subprocess.PIPE,
                env=CHILD_ENVIRONMENT | os.environ | dict(self.environment),
                start_new_session=True,
            )
            code = await self.process.wait()
            failures = 1 if time.monotonic() - started > STEADY_SECONDS else failures + 1
            pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
            log.warning("child.ended", child=self.name, code=code, restart_in_seconds=pause)
            await asyncio.sleep(pause)

    async def stop(self) -> None:
        """Asks it to end, then ends its whole group."""
        process = self.process
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            log.warning("child.killed", child=self.name)
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


async def _announce(settings: Settings) -> None:
    """Prints how to call the service, once API and engine answer."""
    urls = [
        f"http://{settings.host}:{settings.port}/health",
        *(f"{engine}/health" for engine in _engine_urls(settings)),
    ]
    deadline = time.monotonic() + READY_SECONDS
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        for url in urls:
            while not await _answers(session, url):
                if time.monotonic() > deadline:
                    log.warning("up.not_ready", url=url)
                    return
                await asyncio.sleep(0.2)
    sys.stdout.write(_welcome(settings))
    sys.stdout.flush()


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _welcome(settings: Settings) -> str:
    url, key_file = f"http://{settings.host}:{settings.port}/v1", settings.data_dir / KEY_FILE
    key = key_file.read_text(encoding="utf-8").strip() if key_file.exists() else "<your key>"
    return f"""
Luthier is ready.
  URL      {url}
  API key  {key}   (kept in {key_file})

Paste one of these:
  curl {url}/models -H "Authorization: Bearer {key}"
  python -c "from openai import OpenAI; print(OpenAI(base_url='{url}', api_key='{key}').models.list().data)"
  node -e "new (require('openai'))({{baseURL: '{url}', apiKey: '{key}'}}).models.list().then(m => console.log(m.data))"

Ctrl-C stops everything; jobs go on at the next start.
"""
