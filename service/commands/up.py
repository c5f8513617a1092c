"""`luthierd up`: one machine's children (API, worker, engines), each restarted with back-off, all ended together.

Children end when their stdin does, so that not even `kill -9` of this process leaves one behind.
"""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import aiohttp
import structlog

from service.commands.api_processes import address_family, api_children, cannot_listen
from service.db import schema
from service.installation.context import Context
from service.installation.create import opened
from service.operations import keys
from service.processes.child import KeptChild
from service.processes.forks import LIBRARY_ENVIRONMENT, fork_server, start_fork
from service.recipes.base_folder import folder_problems, has_chat_template
from service.recipes.catalogue import CatalogueError, read_catalogue
from service.recipes.engines import engines_by_base, without_engines
from service.settings.settings import Settings

log = structlog.get_logger()
KEY_FILE = "api-key"
STOP_SECONDS = 30.0
READY_SECONDS = 300.0
CHILD_ENVIRONMENT = LIBRARY_ENVIRONMENT | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def run(settings: Settings) -> int:
    """Blocks until SIGINT or SIGTERM; returns the exit code."""
    _check_ports(settings)
    _check_bases(settings)
    with fork_server():  # engine, worker and trainers then import torch once, together
        return asyncio.run(_run(settings))


async def prepare(settings: Settings) -> None:
    """Migrates; at the first start creates the default project and a key, which is stored in the data folder."""
    async with opened(settings) as ctx:
        await ctx.reserve.backed_start(partial(_prepare, ctx))


async def _prepare(ctx: Context) -> None:
    await schema.migrate(ctx.database)
    key = await keys.ensure_installation(ctx)
    key_file = ctx.settings.data_dir / KEY_FILE
    if key is None and not key_file.exists():
        key = await keys.create_key(ctx, "default", "project", "created by luthierd up")
    if key is not None:
        _store_key(key_file, key)


def _check_ports(settings: Settings) -> None:
    """Raises ValueError, with what to do, where another process already listens."""
    engines = [("LUTHIER_ENGINE_", settings.engine_host, port) for port in _engines(settings)]
    for prefix, host, port in [("LUTHIER_", settings.host, settings.port), *engines]:
        with socket.socket(address_family(host)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise cannot_listen(prefix, host, port, error) from error


def _engines(settings: Settings) -> dict[int, str]:
    """The engines that `up` starts: port -> base. One for each base that names no engines; none for vLLM's."""
    bases = without_engines(read_catalogue(settings.catalogue))
    ports = enumerate(bases, start=settings.engine_port)
    return {port: base.id for port, base in ports if base.serving.engine == "embedded"}


def _engine_urls(settings: Settings) -> list[str]:
    """Every engine of the installation."""
    found = engines_by_base(read_catalogue(settings.catalogue), settings.engines)
    return list(dict.fromkeys(url for urls in found.values() for url in urls))


def _store_key(path: Path, key: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(key + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def _check_bases(settings: Settings) -> None:
    """Raises CatalogueError for bases whose folders are missing or incomplete: no child could ever load them."""
    catalogue = read_catalogue(settings.catalogue)
    used = {base.id: base for base in catalogue.named(settings.held_bases)}
    used |= {id: catalogue.bases[id] for id in _engines(settings).values()}
    problems = [problem for base in used.values() for problem in folder_problems(base)]
    if problems:
        raise CatalogueError(f"The catalogue {settings.catalogue} cannot be used. {' '.join(problems)}")
    for base in used.values():
        if has_chat_template(base) is False:
            log.warning("up.no_chat_template", base=base.id)


async def _run(settings: Settings) -> int:
    async with opened(settings) as ctx:
        await ctx.reserve.backed_start(ctx.storage.check)  # reported once here, instead of by every child
        await ctx.reserve.backed_start(partial(_prepare, ctx))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    children = [
        *(
            _child("engine", ["workers", "engine", "--base", base], {"LUTHIER_ENGINE_PORT": str(port)})
            for port, base in _engines(settings).items()
        ),
        _child("worker", ["workers", "train"]),
        *api_children(settings, CHILD_ENVIRONMENT | os.environ, start_fork),
    ]
    kept = [asyncio.create_task(child.keep()) for child in children]
    ready = asyncio.create_task(announce(settings))
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({stopped, *kept}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    for task in kept:
        task.cancel()
    await asyncio.gather(*kept, return_exceptions=True)
    for child in reversed(children):  # the API first, then the worker, then the engines
        await child.stop()
    return 0 if stopped.done() else 1


def _child(name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> KeptChild:
    """A part of this installation; its environment is ours, changed by `environment`."""
    return KeptChild(
        name,
        [sys.executable, "-m", *arguments, "--die-with-parent"],
        CHILD_ENVIRONMENT | os.environ | dict(environment or {}),
        stop_seconds=STOP_SECONDS,
        start=start_fork,
    )


async def announce(settings: Settings) -> None:
    """Prints how to call the service once the API responds, and then which engines do not yet, until they do.

    Jobs can be created meanwhile; an engine elsewhere may be started much later, or never.
    """
    engines = [f"{url}/health" for url in _engine_urls(settings)]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        await _wait_for(session, f"http://{settings.host}:{settings.port}/health")
        missing = [url for url in engines if not await _responds(session, url)]
        silent = [url.removesuffix("/health") for url in missing]
        _say(welcome(settings, silent, to_a_terminal=sys.stdout.isatty()))
        await asyncio.gather(*(_wait_for(session, url) for url in missing))
        if missing:
            _say("Every engine responds: models can be called.\n")


async def _wait_for(session: aiohttp.ClientSession, url: str) -> None:
    """Returns when `url` responds; warns now and then while it does not."""
    warn_at = time.monotonic() + READY_SECONDS
    while not await _responds(session, url):
        if time.monotonic() > warn_at:
            log.warning("up.not_ready", url=url)
            warn_at = time.monotonic() + READY_SECONDS
        await asyncio.sleep(0.2)


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


async def _responds(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def welcome(settings: Settings, missing: Sequence[str] = (), *, to_a_terminal: bool) -> str:
    """How to call the service, and which engines are `missing`.

    Only a terminal is shown the key: what is not one may be a log, which others read.
    """
    url, key_file = f"http://{settings.host}:{settings.port}/v1", settings.data_dir / KEY_FILE
    key, shown = "$LUTHIER_API_KEY", f"in {key_file}: export LUTHIER_API_KEY=$(cat {key_file})"
    if to_a_terminal:
        key = key_file.read_text(encoding="utf-8").strip() if key_file.exists() else "<your key>"
        shown = f"{key}   (stored in {key_file})"
    state = "Luthier is ready."
    if missing:
        silent = ", ".join(missing)
        state = f"Luthier is ready for files and jobs. Models cannot be called yet: no response from {silent}."
    command = Path(sys.executable).with_name("luthier")  # of the package in clients/python
    shown_command = command if command.exists() else "luthier"
    return f"""
{state}
  Page     {url.removesuffix("/v1")}   (sign in with the API key)
  URL      {url}
  API key  {shown}

Paste one of these:
  LUTHIER_URL={url} LUTHIER_API_KEY={key} {shown_command} models ls
  curl {url}/models -H "Authorization: Bearer {key}"
  python -c "from openai import OpenAI; print(OpenAI(base_url='{url}', api_key='{key}').models.list().data)"
  node -e "new (require('openai'))({{baseURL: '{url}', apiKey: '{key}'}}).models.list().then(m => console.log(m.data))"

Ctrl-C stops everything; jobs continue at the next start.
"""
