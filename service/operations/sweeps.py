"""What is due to be swept, and what has been: the reads and writes of `chores` and `orphans`.

The caller removes the bytes in between; nothing here touches storage. Everything may be written twice, and several
processes may sweep at once.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from service.db import (
    checks,
    cursors,
    datasets,
    files,
    jobs,
    keys,
    model_imports,
    model_merges,
    models,
    snapshots,
    uploads,
)
from service.db.connection import Transaction
from service.domain.storage_keys import Room
from service.installation.context import Context


async def any_due(ctx: Context) -> bool:
    """Whether a sweep would find anything to do. Reads once and takes no lock, so that looking often costs little."""
    async with ctx.database.reading() as tx:
        return (
            await files.any_expired(tx)
            or bool(await checks.expired(tx, ctx.settings.check_life_seconds, 1))
            or bool(await files.unneeded(tx, 1))
            or await uploads.any_overdue(tx)
            or bool(await uploads.unneeded_parts(tx, 1))
            or bool(await uploads.unswept(tx, 1))
            or bool(await models.unswept(tx, 1))
            or bool(await jobs.unswept(tx, 1))
            or bool(await model_imports.unswept(tx, 1))
            or bool(await model_merges.expired(tx, ctx.settings.merged_life_seconds, 1))
            or await cursors.any_to_forget(tx)
            or await datasets.any_unused(tx)
        )


async def unneeded_files(ctx: Context, limit: int) -> dict[str, list[str]]:
    """Deleted files that no active job names: id -> the keys of their bytes."""
    async with ctx.database.reading() as tx:
        return {id: await _keys_of_file(tx, id) for id in await files.unneeded(tx, limit)}


async def file_swept(ctx: Context, id: str) -> None:
    """The file's bytes are gone."""
    async with ctx.database.transaction() as tx:
        await files.mark_swept(tx, id)


async def expire_uploads(ctx: Context) -> None:
    """Marks pending uploads whose time is over as expired."""
    async with ctx.database.transaction() as tx:
        await uploads.expire(tx)


async def forget_removed_rows(ctx: Context) -> None:
    """Forgets where rows stood that left their lists long ago."""
    async with ctx.database.transaction() as tx:
        await cursors.forget(tx)


async def unneeded_parts(ctx: Context, limit: int) -> dict[str, str]:
    """Parts of uploads that have ended, which no file has taken: id -> key."""
    async with ctx.database.reading() as tx:
        return await uploads.unneeded_parts(tx, limit)


async def parts_removed(ctx: Context, ids: Sequence[str]) -> None:
    """The bytes of these parts are gone."""
    async with ctx.database.transaction() as tx:
        await uploads.remove_parts(tx, ids)


async def ended_uploads(ctx: Context, limit: int) -> dict[str, set[str]]:
    """Uploads to which no part can come any more: id -> the keys that their file needs."""
    async with ctx.database.reading() as tx:
        return {
            upload.id: set(await _keys_of_file(tx, upload.file_id)) if upload.file_id else set()
            for upload in await uploads.unswept(tx, limit)
        }


async def upload_swept(ctx: Context, id: str) -> None:
    """Nothing of the upload is stored any more but what its file needs."""
    async with ctx.database.transaction() as tx:
        await uploads.mark_swept(tx, id)


async def remove_unused_datasets(ctx: Context, limit: int) -> list[str]:
    """Removes the rows of tokenised files that nobody needs; returns the keys of their bytes, which may go now."""
    async with ctx.database.transaction() as tx:
        return await datasets.remove_unused(tx, limit)


async def dead_models(ctx: Context, limit: int) -> list[str]:
    """Names of deleted models whose artifacts still lie in storage and that no active job continues."""
    async with ctx.database.reading() as tx:
        return await models.unswept(tx, limit)


async def model_swept(ctx: Context, name: str) -> None:
    """The model's artifact is gone."""
    async with ctx.database.transaction() as tx:
        await models.mark_swept(tx, name)


async def ended_jobs(ctx: Context, limit: int) -> dict[str, str | None]:
    """Ended jobs whose private objects may still lie in storage: id -> the name of an artifact that no model has."""
    async with ctx.database.reading() as tx:
        return {id: await jobs.unannounced(tx, id) for id in await jobs.unswept(tx, limit)}


async def job_swept(ctx: Context, id: str) -> None:
    """Nothing private to the job is stored any more."""
    async with ctx.database.transaction() as tx:
        await snapshots.remove_all(tx, id)
        await jobs.mark_swept(tx, id)


async def ended_imports(ctx: Context, limit: int) -> dict[str, str | None]:
    """Ended imports whose private objects may still lie in storage: id -> the name of an artifact that no model has."""
    async with ctx.database.reading() as tx:
        return await model_imports.unswept(tx, limit)


async def import_swept(ctx: Context, id: str) -> None:
    """Nothing private to the import is stored any more."""
    async with ctx.database.transaction() as tx:
        await model_imports.mark_swept(tx, id)


async def unneeded_merges(ctx: Context, limit: int) -> list[str]:
    """Ids of merges whose time is over, or whose model is deleted."""
    async with ctx.database.reading() as tx:
        return await model_merges.expired(tx, ctx.settings.merged_life_seconds, limit)


async def merges_removed(ctx: Context, ids: Sequence[str]) -> None:
    """The archives of these merges are gone."""
    async with ctx.database.transaction() as tx:
        await model_merges.remove(tx, ids)


async def owner_of_store(ctx: Context) -> str | None:
    """The id that this installation's store must carry; None before the first start."""
    async with ctx.database.reading() as tx:
        installation = await keys.find_installation(tx)
    return None if installation is None else installation.organization_id


async def unknown_owners(ctx: Context, owners: Collection[tuple[Room, str]]) -> set[tuple[Room, str]]:
    """Those of the owners (of `service.domain.storage_keys.owner_of`) that no row knows."""
    async with ctx.database.reading() as tx:
        unknown: set[tuple[Room, str]] = set()
        for room, known in KNOWN.items():
            ids = {id for where, id in owners if where == room}
            unknown |= {(room, id) for id in ids - await known(tx, list(ids))} if ids else set()
        return unknown


async def is_active(ctx: Context, id: str) -> bool:
    """Whether there is such a job or import, and it has not ended."""
    async with ctx.database.reading() as tx:
        return await jobs.active(tx, id) or await model_imports.active(tx, id)


async def _known_jobs(tx: Transaction, ids: Sequence[str]) -> set[str]:
    """An import's objects lie where a job's do."""
    return await jobs.known(tx, ids) | await model_imports.known(tx, ids)


KNOWN: Mapping[Room, Callable[[Transaction, Sequence[str]], Awaitable[set[str]]]] = {
    "files": files.known,
    "uploads": uploads.known,
    "data": datasets.known,
    "jobs": _known_jobs,
    "adapters": models.known,
    "merged": model_merges.known,
}


async def _keys_of_file(tx: Transaction, id: str) -> list[str]:
    return [segment.key for segment in await files.segments(tx, id)]
