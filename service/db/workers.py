"""Rows of workers that are running: written at every beat, removed when a worker stops or has been silent for a day."""

from dataclasses import asdict

from pydantic import TypeAdapter
from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from service.db.clock import database_now
from service.db.connection import Transaction
from service.db.tables import workers
from service.domain.memory import DeviceMemory
from service.domain.work import WorkerState

FORGOTTEN_SECONDS = 24 * 3600
MEMORY = TypeAdapter(dict[str, DeviceMemory])


async def beat(tx: Transaction, worker: WorkerState) -> None:
    """Records that the worker lives; removes those whose last beat is a day old."""
    memory = {base: asdict(found) for base, found in worker.memory.items()}
    values = {"host": worker.host, "bases": dict(worker.bases), "memory": memory, "beat_at": database_now()}
    dialect = postgresql if tx.connection.dialect.name == "postgresql" else sqlite
    new = dialect.insert(workers).values(id=worker.id, **values)
    await tx.connection.execute(new.on_conflict_do_update(index_elements=[workers.c.id], set_=values))
    await tx.connection.execute(delete(workers).where(workers.c.beat_at < database_now() - FORGOTTEN_SECONDS))


async def remove(tx: Transaction, id: str) -> None:
    await tx.connection.execute(delete(workers).where(workers.c.id == id))


async def living(tx: Transaction, silence_seconds: float) -> list[WorkerState]:
    """Those whose last beat is not older than `silence_seconds`."""
    columns = [workers.c.id, workers.c.host, workers.c.bases, workers.c.memory]
    query = select(*columns).where(workers.c.beat_at >= database_now() - silence_seconds).order_by(workers.c.id)
    return [
        WorkerState(row.id, row.host, row.bases, MEMORY.validate_python(row.memory or {}))
        for row in await tx.connection.execute(query)
    ]
