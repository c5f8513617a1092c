"""Publishing a checkpoint of the trainer: an artifact in storage under a name of its own, then one fenced transaction.

Every publication has a new 8-character id, so no name and no key is written twice; what a lost attempt uploaded stays
without a name. A checkpoint's name is public at once, the last one's after `workers.jobs.announce`.
"""

import asyncio
import time
from pathlib import Path

from service.domain import event as wording
from service.domain import ids
from service.domain.errors import InvalidRequest, JobError
from service.domain.job import Metrics, Publication, named_after, template_date
from service.domain.model import HEAD_CONFIG, HeadConfig, Manifest, Model, ServedFiles, model_name
from service.operations import lookups
from service.operations.progress import HeldJob
from service.recipes.base import Base
from service.recipes.objective import check_trainable, find_objective
from service.recipes.served_form import check_form, form_of
from service.recipes.tuning import check_servable, tuning_of
from workers.files.artifacts import store_artifact
from workers.files.transfer import storage_retry
from workers.jobs.agreement import store_agreement
from workers.trainer.protocol import Checkpointed, Conversion, Ready


class Publisher:
    """What one claim publishes."""

    def __init__(self, held: HeldJob, base: Base) -> None:
        self._ctx = held.ctx
        self._held = held
        self._base = base
        self._ready: Ready | None = None
        self._last: Publication | None = None

    def trained_by(self, ready: Ready) -> None:
        """Takes what the trainer reported about the base that it has loaded."""
        self._ready = ready

    async def checkpoint(self, report: Checkpointed) -> None:
        """Publishes a checkpoint; the last one waits for `finish`. One that an earlier attempt published is skipped.

        Raises JobError where the engines of the base cannot serve the adapter.
        """
        job = self._held.job
        if report.conversion is not None and not report.conversion.enough:
            await self._too_lossy(report.step, report.conversion, last=report.last)
        elif report.last:
            name = await self._store(report, step=None)
            rows = report.head_agreement or report.agreement
            key, sha256 = await store_agreement(self._ctx.storage, job.id, name, rows)
            self._last = Publication(
                name,
                report.step,
                result_metrics(report),
                sample=key,
                sample_sha256=sha256,
                num_steps=None if report.chosen is None else report.chosen.ended_step,
            )
        elif await lookups.find_checkpoint(self._ctx, job.id, report.step) is None:
            name = await self._store(report, step=report.step)
            model = Model(
                name=name,
                project_id=job.project_id,
                job_id=job.id,
                base=job.base,
                kind="checkpoint",
                step=report.step,
                tuning=job.tuning["type"],
                created_at=int(time.time()),
                task=find_objective(job.objective).task,
            )
            await self._held.publish(model, report.metrics)

    async def _too_lossy(self, step: int, found: Conversion, *, last: bool) -> None:
        """A form that keeps too little is never served. Raises JobError for the job's result."""
        if last:
            raise JobError("conversion_too_lossy", wording.too_lossy(found.model_dump()), param="tuning.serve_rank")
        await self._held.warn(wording.checkpoint_left_out(step, found.model_dump()))

    async def finish(self) -> None:
        """Ends this claim of a job that is trained; the next claim announces it."""
        if self._last is None:
            raise JobError("server_error", "The training ended without a last checkpoint.")
        await self._held.trained(self._last)

    async def _store(self, report: Checkpointed, step: int | None) -> str:
        """Stores the adapter; returns its name."""
        job = self._held.job
        self._check_servable()
        installation = await lookups.find_installation(self._ctx)
        name = model_name(named_after(job), installation.organization, job.suffix, ids.publication_id(), step)
        manifest = await self._manifest(report, name)
        await storage_retry(store_artifact)(self._ctx.storage, Path(report.folder), manifest)
        return name

    def _check_servable(self) -> None:
        """Checked again here: the catalogue may have changed since the job was created."""
        job = self._held.job
        try:
            check_trainable(self._base, find_objective(job.objective), job.hyperparameters)
            tuning, form = tuning_of(job.tuning), form_of(job.tuning)
            if form is None:
                check_servable(self._base, tuning)
            else:
                check_form(self._base, tuning, form)
        except InvalidRequest as error:
            raise JobError("not_servable", error.message, error.param) from error

    async def _manifest(self, report: Checkpointed, name: str) -> Manifest:
        job, ready = self._held.job, self._ready
        assert ready is not None
        return Manifest(
            name=name,
            job_id=job.id,
            step=report.step,
            base=job.base,
            base_source=self._base.public_source,
            base_revision=ready.revision,
            base_hashes=ready.hashes,
            tuning=job.tuning["type"],
            objective=job.objective,
            hyperparameters={**job.hyperparameters, **job.tuning, **(job.safeguards or {})},
            seed=job.seed,
            parent=job.parent_model,
            template_date=template_date(job),
            data_hashes=await self._data_hashes(),
            environment=ready.environment,
            metrics=result_metrics(report),
            head=await asyncio.to_thread(_head, Path(report.folder)),
            served=_served(report.conversion),
            files={},  # filled in by store_artifact
            created_at=int(time.time()),
        )

    async def _data_hashes(self) -> dict[str, str]:
        job = self._held.job
        named = {"training": job.training_file, "validation": job.validation_file}
        return {
            role: await lookups.file_hash(self._ctx, file_id) for role, file_id in named.items() if file_id is not None
        }


def result_metrics(report: Checkpointed) -> Metrics:
    """The metrics of a checkpoint's step, with those of its forgetting report and of its served form, if it has any."""
    metrics = dict(report.metrics)
    if (found := report.forgetting) is not None:
        metrics |= {"general_text_loss_before": found.loss_before, "general_text_loss_after": found.loss_after}
    if (conversion := report.conversion) is not None:
        metrics |= {"served_share": conversion.share}
        metrics |= {"served_difference": conversion.difference} if conversion.outputs else {}
    return metrics


def _served(conversion: Conversion | None) -> ServedFiles | None:
    if conversion is None:
        return None
    return ServedFiles(tuning=conversion.form, rank=conversion.rank, share=conversion.share, files={})


def _head(folder: Path) -> HeadConfig | None:
    """What the trainer wrote about the model's head, if it has one."""
    path = folder / HEAD_CONFIG
    return HeadConfig.model_validate_json(path.read_bytes()) if path.exists() else None
