"""The second claim of an import: its artifact is stored; an engine must agree before the name is public.

As `workers.jobs.announce` does for a job. What the engine is compared with is what the worker that read the adapter
computed on the base itself, over a fixed text of the project's (`workers.data.general_text`).
"""

import time

import structlog

from service.domain import event as wording
from service.domain.errors import JobError
from service.domain.event import NewEvent
from service.domain.job import Publication
from service.domain.model import Model
from service.operations.import_work import HeldImport
from service.recipes.base import Base
from workers.jobs.agreement import fetch_agreement
from workers.jobs.announce import agreement_errors
from workers.jobs.engine_check import EngineCheck

log = structlog.get_logger()


class ImportAnnouncement:
    """One claim of one import whose adapter was found good."""

    def __init__(self, held: HeldImport, base: Base) -> None:
        assert held.imported.publication is not None and held.imported.tuning is not None
        self._ctx = held.ctx
        self._held = held
        self._base = base
        self._tuning = str(held.imported.tuning["type"])
        self._publication = Publication(**held.imported.publication)

    async def run(self) -> None:
        """Announces the model or fails the import. Raises LeaseLost and the errors of unavailable parts."""
        began = time.monotonic()
        try:
            verdict = await self._verdict()
        except JobError as error:
            await self._held.fail(error)
            log.info("import.failed", import_id=self._held.imported.id, code=error.code)
            return
        await self._held.finish(self._model(), verdict, time.monotonic() - began)
        log.info("import.succeeded", import_id=self._held.imported.id)

    async def _verdict(self) -> NewEvent:
        if not self._ctx.engines[self._base.id]:
            return wording.import_not_compared()
        with agreement_errors():
            rows = await fetch_agreement(self._ctx.storage, self._publication.sample, self._publication.sample_sha256)
        name, subject = self._publication.name, self._held.imported.id
        return await EngineCheck(self._ctx, self._base, name, subject, imported=True).tokens(rows)

    def _model(self) -> Model:
        imported = self._held.imported
        return Model(
            name=self._publication.name,
            project_id=imported.project_id,
            job_id=None,
            base=imported.base,
            kind="final",
            step=self._publication.step,
            tuning=self._tuning,
            created_at=int(time.time()),
            import_id=imported.id,
        )
