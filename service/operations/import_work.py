"""The two kinds of work of an import: the adapter is read and scored, its model is announced; and a worker's writes.

A write whose claim is no longer valid raises LeaseLost and changes nothing: another worker has the import. How each is
done is in `workers.jobs.import_adapter` and `workers.jobs.announce_import`.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from service.db import bases, files, model_imports, models, work
from service.db.connection import Transaction
from service.domain.check import Failure
from service.domain.errors import JobError
from service.domain.event import NewEvent
from service.domain.job import Publication
from service.domain.json import JsonObject
from service.domain.model import Model
from service.domain.model_import import FINAL, ModelImport
from service.domain.work import Work
from service.operations.job_work import SERVICE_ERROR
from service.work.held import HeldWork
from service.work.kinds import Kind, register

CRASHED = (
    "The import was stopped because its worker ended {crashes} times while it read the adapter or announced the model. "
    "The worker's log says more."
)


async def _begin(tx: Transaction, work: Work) -> ModelImport | None:
    imported = await model_imports.find(tx, None, work.subject_id, lock=True)
    if imported is None or imported.status in FINAL:
        return None
    await model_imports.change(tx, imported.id, imported.status, {"status": "running"})
    return replace(imported, status="running")


async def _abandon(tx: Transaction, work: Work, crashes: int) -> None:
    imported = await model_imports.find(tx, None, work.subject_id, lock=True)
    if imported is not None and imported.status not in FINAL:
        await _fail(tx, imported, _crashed(crashes) if crashes else JobError("server_error", SERVICE_ERROR))


def _crashed(crashes: int) -> JobError:
    """The error of an import that ended the process which read it so many times."""
    return JobError("worker_crashed", CRASHED.format(crashes=crashes), "file")


async def _fail(tx: Transaction, imported: ModelImport, error: JobError) -> None:
    failure = asdict(Failure(error.code, error.message, error.param))
    await _end(tx, imported, {"status": "failed", "error": failure})


async def _end(tx: Transaction, imported: ModelImport, values: Mapping[str, Any]) -> None:
    """The last change of an import; files that came with it are deleted."""
    changed = await model_imports.change(tx, imported.id, imported.status, {**values, "finished_at": int(time.time())})
    assert changed, "whoever ends an import takes its work first"
    if imported.owns_files:
        for id in imported.files.values():
            await files.hide(tx, id)


IMPORT = register(Kind("import", _begin, _abandon))
ANNOUNCE_IMPORT = register(Kind("announce_import", _begin, _abandon))


class HeldImport(HeldWork[ModelImport]):
    """A claim of one of an import's kinds of work, and what may be written with it."""

    @property
    def imported(self) -> ModelImport:
        """The import as the claim found it."""
        return self.subject

    async def stored(self, publication: Publication, tuning: JsonObject) -> None:
        """The adapter was found good and its artifact is stored: any worker may announce it."""
        async with self.transaction() as tx:
            values = {"publication": asdict(publication), "tuning": tuning}
            changed = await model_imports.change(tx, self.imported.id, self.imported.status, values)
            assert changed, "whoever ends an import takes its work first"
            await work.move(tx, self.id, ANNOUNCE_IMPORT.name)
            self.ring(tx)

    async def finish(self, model: Model, verdict: NewEvent, announce_seconds: float) -> None:
        """Makes the model's name public and the import `succeeded`, all at once."""
        agreement = {"message": verdict.message, "level": verdict.level, "figures": dict(verdict.data)}
        async with self.transaction() as tx:
            await models.add(tx, model)
            await _end(tx, self.imported, {"status": "succeeded", "model": model.name, "agreement": agreement})
            await work.remove(tx, [self.id])
            await bases.note_announcement(tx, model.base, announce_seconds)

    async def fail(self, error: JobError) -> None:
        """The adapter cannot become a model."""
        async with self.transaction() as tx:
            await _fail(tx, self.imported, error)
            await work.remove(tx, [self.id])
