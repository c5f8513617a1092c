"""`luthierd doctor`: checks every part of an installation in turn, and says what is wrong and what to do.

Writes nothing, so that it may run anywhere and at any time; `probe` writes an object into storage and removes it. Each
part is checked whatever the others report; findings never contain passwords or keys.
"""

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.db import schema
from service.domain.errors import DatabaseDamaged, Unavailable
from service.domain.storage_keys import DOCTOR_PREFIX, doctor_key
from service.domain.work import LOADING
from service.gateway.client import engine_models
from service.installation.context import Context
from service.installation.create import create_context
from service.installation.engine_key import bearer, engine_key
from service.installation.reserve import is_full
from service.operations import counts, sweeps
from service.recipes.base_folder import folder_problems, has_chat_template
from service.recipes.catalogue import CatalogueError
from service.recipes.registry import ExtensionError
from service.settings.settings import Settings
from service.storage import StorageError, StorageUnusable
from service.storage.base import one_chunk, read

State = Literal["ok", "warning", "problem"]
FREE_BYTES = 1024**3
WAITING_SECONDS = 60  # so long a new job may wait before that is a problem
PART_SECONDS = 30.0


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check of one part."""

    part: str
    state: State
    message: str


async def examine(settings: Settings, *, probe: bool = False) -> list[Diagnosis]:
    """Every part once; takes at most `PART_SECONDS` for each. `probe`: whether storage is tried by writing."""
    try:
        ctx = create_context(settings, prepare=False)
    except (CatalogueError, ExtensionError, ValueError, OSError) as error:
        return [Diagnosis("settings", "problem", str(error))]
    found = _no_installation(ctx)
    parts = {part: look for part, look in PARTS.items() if not found or part in WITHOUT_INSTALLATION}
    if probe and not found:
        parts["storage"] = _probed_storage
    try:
        for part, look in parts.items():
            found += await _look(part, look, ctx)
    finally:
        await ctx.close()
    return found


def _no_installation(ctx: Context) -> list[Diagnosis]:
    """The finding that there is no embedded database; a server says itself what it has."""
    url = ctx.database.url
    if url.get_backend_name() != "sqlite" or Path(url.database or "").is_file():
        return []
    folder = Path(url.database or "").parent
    text = f"{folder} holds no installation: `luthierd up` makes one, or set LUTHIER_DATA_DIR to the folder of yours"
    return [Diagnosis("disk", "problem", text)]


async def _look(part: str, look: "Look", ctx: Context) -> list[Diagnosis]:
    try:
        async with asyncio.timeout(PART_SECONDS):
            return [Diagnosis(part, state, message) async for state, message in look(ctx)]
    except TimeoutError:
        return [Diagnosis(part, "problem", f"no response within {PART_SECONDS:g} seconds")]


Look = Callable[[Context], AsyncIterator[tuple[State, str]]]


async def _disk(ctx: Context) -> AsyncIterator[tuple[State, str]]:
    folder = ctx.settings.data_dir.absolute()
    if not folder.is_dir():
        yield "warning", f"{folder} does not exist: the first process that is started here makes it"
        return
    if not os.access(folder, os.W_OK):
        yield "problem", _unwritable(folder, "LUTHIER_DATA_DIR")
        return
    if await asyncio.to_thread(is_full, folder):
        yield "problem", f"the disk of {folder} is full: free space there"
        return
    free = (await asyncio.to_thread(shutil.disk_usage, folder)).free
    state: State = "ok" if free >= FREE_BYTES else "warning"
    yield state, f"{folder} has {free / FREE_BYTES:.1f} GiB free" + ("" if state == "ok" else ": make room")


async def _catalogue(ctx: Context) -> AsyncIterator[tuple[State, str]]:
    for base in ctx.catalogue.bases.values():
        if Path(base.source).is_absolute():
            problems = await asyncio.to_thread(folder_problems, base)
            for problem in problems:
                yield "problem", problem
            if not problems:
                yield "ok", f"base {base.id}: its folder has a config, weights and a tokenizer"
                if not has_chat_template(base):
                    yield "warning", f"base {base.id}: it has no chat template; only prompts and completions work"
        elif base.revision:
            yield "ok", f"base {base.id}: from a hub, pinned to {base.revision}"
        else:
            yield "warning", f"base {base.id}: from a hub without `revision`; pin it, or its weights may change"


async def _database(ctx: Context) -> AsyncIterator[tuple[State, str]]:
    kind = ctx.database.engine.dialect.name
    try:
        await schema.check(ctx.database)
        owner = await sweeps.owner_of_store(ctx)
    except Unavailable as error:
        yield "problem", _database_remedy(ctx, kind, error)
    except schema.SchemaError as error:
        yield "problem", str(error)
    else:
        yield "ok", f"{kind} responds and has this version's schema"
        if owner is None:
            yield "warning", "there is no API key yet: `luthierd keys create`"


def _database_remedy(ctx: Context, kind: str, error: Unavailable) -> str:
    if kind != "sqlite":
        return f"{kind} is unavailable: {error.message} Check the server and LUTHIER_DATABASE_URL"
    file = Path(ctx.database.url.database or "").absolute()
    if isinstance(error, DatabaseDamaged):
        return f"{file} is damaged: stop everything and restore it from a backup, as docs/operating/recover.md says"
    if is_full(file.parent):
        return f"{file} cannot be opened, because its disk is full: free space there"
    if not os.access(file.parent, os.W_OK) or not os.access(file, os.W_OK):
        return f"{file} cannot be opened: {_unwritable(file.parent, 'LUTHIER_DATA_DIR')}"
    return f"{file} cannot be opened: look at its disk, and at what else has it open"


def _unwritable(folder: Path, setting: str) -> str:
    """Why the folder cannot be written, and what to do."""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"{folder} cannot be written: it is mounted read-only; mount it for writing, or set {setting}"
    return f"{folder} cannot be written: correct its owner, or set {setting}"


async def _storage(ctx: Context) -> AsyncIterator[tuple[State, str]]:
    """Reads a list, which needs the server, the bucket and the right to read."""
    where = ctx.settings.storage
    try:
        async for _ in ctx.storage.list(DOCTOR_PREFIX):
            break
    except (StorageUnusable, StorageError) as error:
        yield "problem", str(error)
        return
    folder = Path(where.removeprefix("file://"))
    if where.startswith("file:") and not _writable(folder):
        yield "problem", _unwritable(_nearest(folder), "LUTHIER_STORAGE_URL")
        return
    yield "ok", f"{where} can be read; `luthierd doctor --probe` also writes an object and removes it"
    for warning in _local_storage(ctx):
        yield "warning", warning


def _writable(folder: Path) -> bool:
    """Whether the folder can be written, or made in the nearest one above it that exists."""
    nearest = _nearest(folder)
    return nearest.is_dir() and os.access(nearest, os.W_OK)


def _nearest(folder: Path) -> Path:
    """The folder, or what exists of the folders above it."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _local_storage(ctx: Context) -> list[str]:
    if ctx.database.engine.dialect.name == "postgresql" and ctx.settings.storage.startswith("file:"):
        return ["a local folder serves one machine; for several set LUTHIER_STORAGE_URL=s3://bucket"]
    return []


async def _probed_storage(ctx: Context) -> AsyncIterator[tuple[State, str]]:
    key, content = doctor_key(secrets.token_hex(8)), secrets.token_bytes(64)
    where = ctx.settings.storage
    try:
        await ctx.storage.check()
        await ctx.storage.put(key, one_chunk(content))
        same = await read(ctx.storage, key) == content
        await ctx.storage.delete(key)
    except (StorageUnusable, StorageError) as error:
        yield "problem", str(error)
        return
    yield (
        ("ok", f"{where} stores, reads and deletes")
        if same
        else ("problem", f"{where} returns other bytes than were stored")
    )
    for warning in _local_storage(ctx):
        yield "warning", warning


async def _bell(ctx: Context) -> AsyncIterator[tuple[State, str]]:
    if ctx.queue.server is None:
        embedded = not ctx.settings.database_url
        yield "ok", "embedded: named pipes" if embedded else "embedded: workers look every LUTHIER_POLL_SECONDS"
        return
    try:
        await ctx.queue.check()
    except Unavailable as error:
        yield "problem", f"{error.message} Jobs start at the next sweep. Check LUTHIER_REDIS_URL"
    else:
        yield "ok", f"{ctx.queue.server} responds"


async def _engines(ctx: Context) -> AsyncIterator[tuple[State, str]]:
    key = bearer(engine_key(ctx.settings, create=False))
    for base in ctx.catalogue.bases.values():
        urls = ctx.engines[base.id]
        if not urls:
            yield "warning", f"base {base.id}: no engine is set; its models cannot be called. Set LUTHIER_ENGINE_URLS"
        for url, served in (await engine_models(urls, key)).items():
            if served is None:
                remedy = "start `luthier-worker engine` or `luthier-worker vllm` there, with our LUTHIER_ENGINE_API_KEY"
                yield "problem", f"{url} does not respond: {remedy}"
            elif base.id not in served:
                yield (
                    "problem",
                    f"{url} does not serve {base.id}: correct LUTHIER_ENGINE_URLS or the catalogue",
                )
            else:
                yield "ok", f"{url} serves {base.id}"


async def _workers(ctx: Context) -> AsyncIterator[tuple[State, str]]:
    try:
        await schema.check(ctx.database)
        found = await counts.count_jobs(ctx)
    except (Unavailable, schema.SchemaError):
        yield "problem", "cannot be checked without a database of this version"
        return
    for worker in found.workers:
        for base, reason in sorted(worker.bases.items()):
            if reason == LOADING:
                yield "warning", f"{worker.id} on {worker.host} is still loading {base}"
            elif reason:
                yield "problem", f"{worker.id} on {worker.host} cannot load {base}: {reason}. See its log"
    held = sum(count.held for count in found.unfinished)
    waiting = sum(count.jobs - count.held for count in found.unfinished if count.status != "paused")
    made = [count.unstarted_since for count in found.unfinished if count.unstarted_since is not None]
    oldest = min(made, default=0)  # none: all have begun before
    if waiting and not held and oldest < time.time() - WAITING_SECONDS:
        yield "problem", f"{waiting} jobs wait and no worker holds any: start `luthier-worker train`"
    else:
        yield "ok", f"{held} jobs are held by workers, {waiting} wait"


PARTS: dict[str, Look] = {
    "disk": _disk,
    "catalogue": _catalogue,
    "database": _database,
    "storage": _storage,
    "bell": _bell,
    "engines": _engines,
    "workers": _workers,
}
WITHOUT_INSTALLATION = frozenset({"catalogue", "bell", "engines"})  # the others would make what they look at
