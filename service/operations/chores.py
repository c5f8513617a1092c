"""What must happen by itself: files and uploads expire, bytes that nobody needs go, dead artifacts. Waits for no slot.

Lost leases need no chore: a job whose lease ran out is claimable as it stands. Runs in the API process; several at
once are harmless, each step is a compare-and-set or a delete that may happen twice. With Redis one of them does what is
due, for all.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial

import structlog

from service.domain.errors import Unavailable
from service.domain.storage_keys import artifact_prefix, dataset_prefix, job_prefix, merged_key, upload_prefix
from service.installation.context import Context
from service.operations import checks, files, sweeps
from service.operations.orphans import OrphanSweep
from service.storage import StorageError

log = structlog.get_logger()
BATCH = 100
TURN = 0.9  # of an interval: it must have ended when the same process comes round again


async def run(ctx: Context) -> None:
    """Sweeps at every interval until cancelled; an unavailable part is tried again at the next sweep."""
    async with asyncio.TaskGroup() as chores:
        chores.create_task(_repeat(partial(_sweep_in_turn, ctx), ctx.settings.sweep_seconds))
        chores.create_task(_repeat(OrphanSweep(ctx).sweep, ctx.settings.orphan_sweep_seconds))


async def _repeat(chore: Callable[[], Awaitable[None]], pause_seconds: float) -> None:
    while True:
        try:
            await chore()
        except (Unavailable, StorageError) as error:
            log.warning("chores.postponed", reason=type(error).__name__)
        except Exception:
            log.exception("chores.failed")  # one bad sweep must not end all that follow
        await asyncio.sleep(pause_seconds)


async def _sweep_in_turn(ctx: Context) -> None:
    if await due(ctx):
        await sweep(ctx)


async def due(ctx: Context) -> bool:
    """Whether it is this process' turn: nobody else has taken it in this interval. Without Redis it always is."""
    return await ctx.turns.take("chores", ctx.settings.sweep_seconds * TURN)


async def sweep(ctx: Context) -> None:
    """Everything once."""
    await ctx.reserve.hold()
    if not await sweeps.any_due(ctx):
        return
    await files.expire(ctx, BATCH)
    await checks.expire(ctx, BATCH)
    await _remove_file_bytes(ctx)
    await sweeps.expire_uploads(ctx)
    await sweeps.forget_removed_rows(ctx)
    await _remove_unneeded_parts(ctx)
    await _remove_stray_parts(ctx)
    await _remove_artifacts(ctx)
    await _remove_job_objects(ctx)
    await _remove_import_objects(ctx)
    await _remove_merged(ctx)
    await _remove_datasets(ctx)


async def _remove_file_bytes(ctx: Context) -> None:
    for id, keys in (await sweeps.unneeded_files(ctx, BATCH)).items():
        for key in keys:
            await ctx.storage.delete(key)
        await sweeps.file_swept(ctx, id)


async def _remove_unneeded_parts(ctx: Context) -> None:
    """Parts of uploads that were cancelled or expired, and those that the completing list did not name."""
    parts = await sweeps.unneeded_parts(ctx, BATCH)
    for key in parts.values():
        await ctx.storage.delete(key)
    await sweeps.parts_removed(ctx, list(parts))


async def _remove_stray_parts(ctx: Context) -> None:
    """Bytes without a row: the process died after storing them. Looked for once, when none can come any more."""
    for id, kept in (await sweeps.ended_uploads(ctx, BATCH)).items():
        await _remove_prefix(ctx, upload_prefix(id), keep=kept)
        await sweeps.upload_swept(ctx, id)


async def _remove_artifacts(ctx: Context) -> None:
    for name in await sweeps.dead_models(ctx, BATCH):
        await _remove_prefix(ctx, artifact_prefix(name))
        await sweeps.model_swept(ctx, name)


async def _remove_job_objects(ctx: Context) -> None:
    """Snapshots and samples of finished jobs, and the artifact of one that ended before it was announced."""
    for id, unannounced in (await sweeps.ended_jobs(ctx, BATCH)).items():
        if unannounced is not None:
            await _remove_prefix(ctx, artifact_prefix(unannounced))
        await _remove_prefix(ctx, job_prefix(id))
        await sweeps.job_swept(ctx, id)


async def _remove_import_objects(ctx: Context) -> None:
    """What ended imports were compared on, and the artifact of one that was not announced."""
    for id, unannounced in (await sweeps.ended_imports(ctx, BATCH)).items():
        if unannounced is not None:
            await _remove_prefix(ctx, artifact_prefix(unannounced))
        await _remove_prefix(ctx, job_prefix(id))
        await sweeps.import_swept(ctx, id)


async def _remove_merged(ctx: Context) -> None:
    ids = await sweeps.unneeded_merges(ctx, BATCH)
    for id in ids:
        await ctx.storage.delete(merged_key(id))
    if ids:
        await sweeps.merges_removed(ctx, ids)


async def _remove_datasets(ctx: Context) -> None:
    """Shared tokenised data, and what checks stored about them. A process that dies in between leaves orphans."""
    for key in await sweeps.remove_unused_datasets(ctx, BATCH):
        await _remove_prefix(ctx, dataset_prefix(key))


async def _remove_prefix(ctx: Context, prefix: str, keep: Collection[str] = ()) -> None:
    async for found in ctx.storage.list(prefix):
        if found.key not in keep:
            await ctx.storage.delete(found.key)
