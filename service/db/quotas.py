"""What a project has: files, their bytes, open uploads, jobs that have not started, checks and imports to be ended."""

from dataclasses import dataclass

from sqlalchemy import func, select

from service.db.connection import Transaction
from service.db.tables import checks, files, jobs, model_imports, model_merges, projects, uploads
from service.domain import model_import, model_merge
from service.domain.check import FINAL


@dataclass(frozen=True)
class ProjectUsage:
    """`bytes` are those of living files, merged models and open uploads: announced, or stored where that is more."""

    files: int
    bytes: int
    uploads: int
    jobs: int
    checks: int
    imports: int
    merges: int


async def usage(tx: Transaction, project_id: str, *, lock: bool = False) -> ProjectUsage:
    """Of one project. `lock`: no other transaction that locks adds to it before this one ends."""
    if lock:
        await tx.connection.execute(select(projects.c.id).where(projects.c.id == project_id).with_for_update())
    living = select(func.count(), func.coalesce(func.sum(files.c.bytes), 0)).where(
        files.c.project_id == project_id, files.c.deleted_at.is_(None)
    )
    num_files, file_bytes = (await tx.connection.execute(living)).one()
    announced = func.sum(func.coalesce(uploads.c.bytes, 0)), func.sum(uploads.c.stored_bytes)
    pending = select(func.count(), *announced).where(
        uploads.c.project_id == project_id, uploads.c.status == "pending", uploads.c.swept_at.is_(None)
    )
    num_uploads, upload_bytes, stored_bytes = (await tx.connection.execute(pending)).one()
    waiting = select(func.count()).where(
        jobs.c.project_id == project_id, jobs.c.status.in_(("validating_files", "queued"))
    )
    num_jobs = (await tx.connection.execute(waiting)).scalar_one()
    checking = select(func.count()).where(checks.c.project_id == project_id, checks.c.status.not_in(FINAL))
    num_checks = (await tx.connection.execute(checking)).scalar_one()
    importing = select(func.count()).where(
        model_imports.c.project_id == project_id, model_imports.c.status.not_in(model_import.FINAL)
    )
    num_imports = (await tx.connection.execute(importing)).scalar_one()
    merged = select(
        func.count().filter(model_merges.c.status.not_in(model_merge.FINAL)),
        func.coalesce(func.sum(model_merges.c.bytes), 0),
    ).where(model_merges.c.project_id == project_id)
    num_merges, merged_bytes = (await tx.connection.execute(merged)).one()
    held = max(int(upload_bytes or 0), int(stored_bytes or 0))
    return ProjectUsage(
        files=int(num_files),
        bytes=int(file_bytes) + int(merged_bytes) + held,
        uploads=int(num_uploads),
        jobs=int(num_jobs),
        checks=int(num_checks),
        imports=int(num_imports),
        merges=int(num_merges),
    )
