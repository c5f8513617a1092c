"""How much one project may have, so that none fills the disk or the queue of all. Checked before bytes are received and
again in the transaction that writes the row.
"""

from service.db import quotas
from service.db.connection import Transaction
from service.domain.errors import QuotaExceeded, TooLarge
from service.installation.context import Context
from service.operations.keys import Caller


async def check_room(ctx: Context, caller: Caller, num_bytes: int) -> None:
    """Raises QuotaExceeded or TooLarge unless the project may store one more file of `num_bytes`."""
    async with ctx.database.reading() as tx:
        await check_file(ctx, tx, caller, num_bytes, lock=False)


async def check_file(ctx: Context, tx: Transaction, caller: Caller, num_bytes: int, *, lock: bool = True) -> None:
    """Before a file's row is written. Raises QuotaExceeded or TooLarge."""
    found = await quotas.usage(tx, caller.project_id, lock=lock)
    _check_files(ctx, found.files, found.uploads, "file")
    _check_bytes(ctx, found.bytes, num_bytes, "file")


async def check_part(ctx: Context, tx: Transaction, caller: Caller) -> None:
    """After a part's row is written, which the caller's transaction takes back. Raises TooLarge."""
    found = await quotas.usage(tx, caller.project_id, lock=True)
    _check_bytes(ctx, found.bytes, 0, "data")


async def check_upload(ctx: Context, tx: Transaction, caller: Caller, num_bytes: int) -> None:
    """Before an upload's row is written. Raises QuotaExceeded or TooLarge."""
    found, limit = await quotas.usage(tx, caller.project_id, lock=True), ctx.settings.project_uploads
    _check_files(ctx, found.files, found.uploads, None)
    _check_count(found.uploads, limit, "open uploads", "Please complete or cancel some; each expires after an hour.")
    _check_bytes(ctx, found.bytes, num_bytes, "bytes")


async def check_completed(ctx: Context, tx: Transaction, caller: Caller) -> None:
    """Before an upload becomes a file. Its place was free when it was created; results of jobs are files, too.

    Raises QuotaExceeded.
    """
    found = await quotas.usage(tx, caller.project_id, lock=True)
    _check_files(ctx, found.files, found.uploads - 1, None)


async def check_job(ctx: Context, tx: Transaction, caller: Caller) -> None:
    """Before a job's row is written. Raises QuotaExceeded."""
    found, limit = await quotas.usage(tx, caller.project_id, lock=True), ctx.settings.project_jobs
    _check_count(
        found.jobs, limit, "jobs that have not started", "Please wait until some have started, or cancel some."
    )


async def check_check(ctx: Context, tx: Transaction, caller: Caller) -> None:
    """Before a check's row is written: as many may be unfinished as jobs may wait. Raises QuotaExceeded."""
    found, limit = await quotas.usage(tx, caller.project_id, lock=True), ctx.settings.project_jobs
    _check_count(
        found.checks, limit, "checks that have not ended", "Please wait until some have ended, or delete some."
    )


async def check_import(ctx: Context, tx: Transaction, caller: Caller) -> None:
    """Before an import's row is written: as many may be unfinished as jobs may wait. Raises QuotaExceeded."""
    found, limit = await quotas.usage(tx, caller.project_id, lock=True), ctx.settings.project_jobs
    _check_count(found.imports, limit, "imports of models that have not ended", "Please wait until some have ended.")


async def check_merge(ctx: Context, tx: Transaction, caller: Caller) -> None:
    """Before a merge's row is written: as many may be unfinished as jobs may wait. Raises QuotaExceeded or TooLarge."""
    found, limit = await quotas.usage(tx, caller.project_id, lock=True), ctx.settings.project_jobs
    _check_count(found.merges, limit, "models that are being merged", "Please wait until some are done.")
    _check_bytes(ctx, found.bytes, 1, "format")


async def check_merged(ctx: Context, tx: Transaction, project_id: str, num_bytes: int) -> None:
    """Before the bytes of a merged model count. Raises TooLarge."""
    found = await quotas.usage(tx, project_id, lock=True)
    _check_bytes(ctx, found.bytes, num_bytes, "format")


def _check_count(count: int, limit: int, what: str, remedy: str) -> None:
    if count >= limit:
        raise QuotaExceeded(f"Your project has {count:,} {what}, and may have {limit:,}. {remedy}")


def _check_files(ctx: Context, files: int, open_uploads: int, param: str | None) -> None:
    """An open upload counts as the file that it will be: its bytes are not sent in vain."""
    limit = ctx.settings.project_files
    if files + open_uploads >= limit:
        promised = f" and {open_uploads:,} open uploads" if open_uploads else ""
        raise QuotaExceeded(
            f"Your project has {files:,} files{promised}, and may have {limit:,}. Please delete files that are not "
            f"needed any more{', cancel uploads,' if open_uploads else ','} or ask for a higher LUTHIER_PROJECT_FILES.",
            param=param,
        )


def _check_bytes(ctx: Context, used: int, wanted: int, param: str) -> None:
    limit = ctx.settings.project_bytes
    if used + wanted > limit:
        raise TooLarge(
            f"Your project's files, open uploads and merged models have {used:,} bytes, and may have {limit:,}: "
            f"{wanted:,} more do not fit. Please delete files that are not needed any more, or ask for a higher "
            "LUTHIER_PROJECT_BYTES.",
            param=param,
            code="project_bytes_exceeded",
        )
