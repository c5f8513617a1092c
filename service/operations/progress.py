"""A worker's writes about the job that it holds: warn, record, publish, pause, finish, fail. Each is one transaction.

A write whose claim is no longer valid raises LeaseLost and changes nothing: the job was cancelled, or another worker
has it. Nothing here touches storage: what a row points to was stored before.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from service.db import bases, datasets, events, files, jobs, models, snapshots, work
from service.db.connection import Transaction
from service.domain import event as wording
from service.domain import ids
from service.domain.dataset import StoredDataset
from service.domain.errors import JobError
from service.domain.event import NewEvent
from service.domain.file import File, Segment
from service.domain.job import Checkpoint, Job, Publication, Snapshot
from service.domain.model import Model
from service.installation.context import Context
from service.operations import job_work
from service.operations.job_work import ANNOUNCE, TRAIN
from service.work.held import HeldWork

DataColumn = Literal["training_data", "validation_data"]


@dataclass(frozen=True)
class StepRecord:
    """The result of one optimizer step; `metrics` has OpenAI's names."""

    step: int
    trained_tokens: int
    metrics: Mapping[str, int | float]


class HeldJob(HeldWork[Job]):
    """A claim of one of a job's kinds of work, and what may be written with it."""

    @property
    def job(self) -> Job:
        """The job as the claim found it."""
        return self.subject

    async def warn(self, warning: NewEvent) -> None:
        """Records what the user should know and what does not stop the job."""
        async with self.transaction() as tx:
            await events.add(tx, self.job.id, [warning])

    async def use_dataset(self, column: DataColumn, key: str) -> StoredDataset | None:
        """The tokenised rows of that content, if there are any. The job names them at once: no sweep removes them."""
        async with self.transaction() as tx:
            found = await datasets.use(tx, key)
            if found is not None:
                await self._change(tx, {column: found.object_key}, [])
            return found

    async def add_dataset(self, column: DataColumn, stored: StoredDataset, missing: str | None = None) -> StoredDataset:
        """Shares rows that were stored just now; returns those that the job uses.

        They are another worker's where it was faster: then the ones of `stored` are orphans. `missing` is the object
        that `use_dataset` named and that storage no longer has.
        """
        async with self.transaction() as tx:
            if missing is not None:
                await datasets.remove(tx, missing)
            used = await datasets.add_or_use(tx, stored)
            await self._change(tx, {column: used.object_key}, [])
            return used

    async def remove_dataset(self, object_key: str) -> None:
        """These rows are missing or damaged in storage: no other job is to use them."""
        async with self.transaction() as tx:
            await datasets.remove(tx, object_key)

    async def validated(self, *, hyperparameters: dict[str, object], total_steps: int) -> None:
        """The files are good and the job names their tokenised rows: it waits for a slot."""
        values = {"status": "queued", "hyperparameters": hyperparameters, "total_steps": total_steps}
        async with self.transaction() as tx:
            await self._change(tx, values, [wording.validated()])
            await work.move(tx, self.id, TRAIN.name)
            self.ring(tx)

    async def record_steps(self, steps: Sequence[StepRecord], seconds_per_step: float | None) -> None:
        """Progress and metrics of some steps, oldest first; replayed ones do not double."""
        values: dict[str, object] = {"step": steps[-1].step, "trained_tokens": steps[-1].trained_tokens}
        if seconds_per_step is not None:
            values["seconds_per_step"] = seconds_per_step
        async with self.transaction() as tx:
            await self._change(tx, values, [wording.step(step.metrics) for step in steps])

    async def record_snapshot(self, snapshot: Snapshot, keep: int = 2) -> list[Snapshot]:
        """Records a stored snapshot; returns the older ones that are no longer needed, whose objects may go.

        One of a later step than any before is progress: earlier crashes do not count any more.
        """
        async with self.transaction() as tx:
            stored = await snapshots.of_job(tx, self.job.id)
            if all(old.step < snapshot.step for old in stored):
                await self.note_progress(tx)
            before = [old for old in stored if old.step != snapshot.step]
            await snapshots.add(tx, snapshot)
            superseded = before[keep - 1 :]
            await snapshots.remove(tx, self.job.id, [old.step for old in superseded])
            return superseded

    async def publish(self, model: Model, metrics: Mapping[str, int | float]) -> None:
        """Makes a stored artifact a callable checkpoint; the oldest beyond those that are kept are deleted."""
        async with self.transaction() as tx:
            await self._change(tx, {}, [wording.checkpoint_created(model.step, model.name)])
            await models.add(tx, model)
            await models.add_checkpoint(tx, _checkpoint(model, metrics))
            await models.delete_old_checkpoints(tx, self.job.id, self.ctx.settings.checkpoints_kept)

    async def pause(self, step: int) -> bool:
        """Gives back a job that stopped at `step`, its snapshot and checkpoint stored.

        Then it is `paused`; False when its user has resumed it meanwhile: it continues as soon as a worker claims it.
        """
        async with self.transaction() as tx:
            job = await jobs.find(tx, None, self.job.id, lock=True)
            assert job is not None, "the work of a job ends with it"
            wanted = job.pause_requested_at is not None
            if wanted:
                await self._change(tx, {"status": "paused", "pause_requested_at": None}, [wording.paused(step)])
                await work.pause(tx, self.id)
            else:
                await work.release(tx, self.id)
            self.ring(tx)
            return wanted

    async def trained(self, publication: Publication) -> None:
        """The training is over, its artifact stored: the job needs no slot any more, any worker may announce it."""
        values: dict[str, object] = {"publication": asdict(publication)}
        if publication.num_steps is not None:
            values["total_steps"] = publication.num_steps
        async with self.transaction() as tx:
            await self._change(tx, values, [])
            await work.move(tx, self.id, ANNOUNCE.name)
            self.ring(tx)

    async def finish(
        self,
        model: Model,
        metrics: Mapping[str, int | float],
        result: tuple[File, Sequence[Segment]],
        verdict: NewEvent | None = None,
        *,
        reports: Sequence[tuple[File, Sequence[Segment]]] = (),
        announce_seconds: float | None = None,
    ) -> None:
        """Marks the job `succeeded`, makes its model's name public and its result files visible, all at once.

        `result` has the metrics; `reports` are more files, which stand after it. `verdict` is the event about the
        comparison with an engine; `announce_seconds` says how long that took.
        """
        values = {
            "status": "succeeded",
            "finished_at": int(time.time()),
            "fine_tuned_model": model.name,
            "result_file": result[0].id,
            "report_files": [file.id for file, _ in reports] or None,
        }
        async with self.transaction() as tx:
            new_events = [wording.model_created(model.name), wording.succeeded()]
            await self._change(tx, values, new_events if verdict is None else [verdict, *new_events])
            await work.remove(tx, [self.id])
            await models.add(tx, model)
            await models.add_final_checkpoint(tx, _checkpoint(model, metrics))
            await models.delete_old_checkpoints(tx, self.job.id, self.ctx.settings.checkpoints_kept)
            for stored in (result, *reports):
                await files.add(tx, *stored)
            if announce_seconds is not None:
                await bases.note_announcement(tx, self.job.base, announce_seconds)

    async def fail(self, error: JobError, data: Mapping[str, Any] | None = None) -> None:
        """Marks the job `failed`; `data` goes into the event (every bad line of a file, for example)."""
        async with self.transaction() as tx:
            await job_work.fail(tx, self.job, error, dict(data or {}))
            await work.remove(tx, [self.id])

    async def _change(self, tx: Transaction, values: Mapping[str, Any], new_events: Sequence[NewEvent]) -> None:
        """Inside a fenced transaction, in which nobody else moves the job to another status."""
        if values:
            changed = await jobs.change(tx, self.job.id, self.job.status, values)
            assert changed, "whoever moves a job to another status takes its work first"
        if new_events:
            await events.add(tx, self.job.id, new_events)


async def pauses_asked(ctx: Context, job_ids: Sequence[str]) -> set[str]:
    """Those of these jobs that their users want paused."""
    async with ctx.database.reading() as tx:
        return await jobs.pauses_asked(tx, job_ids)


def _checkpoint(model: Model, metrics: Mapping[str, int | float]) -> Checkpoint:
    assert model.job_id is not None, "it was trained here"
    return Checkpoint(
        id=ids.checkpoint_id(),
        job_id=model.job_id,
        step=model.step,
        model_name=model.name,
        metrics=dict(metrics),
        created_at=model.created_at,
    )
