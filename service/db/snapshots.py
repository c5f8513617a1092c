"""Rows of snapshots: which complete folders in storage a job can continue from."""

import time

from sqlalchemy import delete, insert, select

from service.db.connection import Transaction
from service.db.tables import snapshots
from service.domain.job import Snapshot


async def add(tx: Transaction, snapshot: Snapshot) -> None:
    """Records a complete snapshot; one of the same step (a replay's) is replaced."""
    await remove(tx, snapshot.job_id, [snapshot.step])
    await tx.connection.execute(
        insert(snapshots).values(
            job_id=snapshot.job_id,
            step=snapshot.step,
            prefix=snapshot.prefix,
            files=snapshot.files,
            created_at=int(time.time()),
        )
    )


async def of_job(tx: Transaction, job_id: str) -> list[Snapshot]:
    """The job's snapshots, newest first."""
    columns = [snapshots.c.job_id, snapshots.c.step, snapshots.c.prefix, snapshots.c.files]
    query = select(*columns).where(snapshots.c.job_id == job_id).order_by(snapshots.c.step.desc())
    return [Snapshot(**row._mapping) for row in await tx.connection.execute(query)]


async def remove(tx: Transaction, job_id: str, steps: list[int]) -> None:
    await tx.connection.execute(delete(snapshots).where(snapshots.c.job_id == job_id, snapshots.c.step.in_(steps)))


async def remove_all(tx: Transaction, job_id: str) -> None:
    await tx.connection.execute(delete(snapshots).where(snapshots.c.job_id == job_id))
