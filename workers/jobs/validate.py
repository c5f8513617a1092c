"""The first claim of a job: read its files, check every line, tokenise once, resolve "auto".

Needs no slot and no trainer, so an invalid file fails in seconds however busy the worker is. The rows are shared
(`workers.jobs.datasets`). `workers.jobs.train` stages them.
"""

import asyncio
import shutil
from pathlib import Path

import structlog

from service.domain.errors import JobError
from service.domain.job import template_date
from service.operations.progress import HeldJob
from service.recipes.base import Base
from service.recipes.objective import find_objective, own_settings
from workers.data.check import DatasetInvalid
from workers.files.disk import disk_errors
from workers.jobs.check_processes import CheckProcesses, ProcessEnded
from workers.jobs.datasets import FileDatasets, Subject
from workers.jobs.loading import Tokenizers
from workers.jobs.plan import plan_job

log = structlog.get_logger()


class JobValidation:
    """One claim of one job that is in `validating_files`."""

    def __init__(
        self,
        held: HeldJob,
        base: Base,
        tokenizers: Tokenizers,
        scratch: Path,
        processes: CheckProcesses | None = None,
    ) -> None:
        """`processes` as `FileDatasets`."""
        self._ctx = held.ctx
        self._held = held
        self._base = base
        self._folder = scratch / f"{held.job.id}-{held.attempt}-validation"
        subject = Subject("job", held.job.id, held.job.objective, held.job.tuning, template_date(held.job))
        self._datasets = FileDatasets(held, subject, base, tokenizers, self._folder, processes)

    async def run(self) -> None:
        """Brings the job to `queued` or `failed`. Raises LeaseLost, BaseNotLoaded, and what unavailable parts raise."""
        try:
            with disk_errors():
                await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
                await self._check_and_store()
        except DatasetInvalid as invalid:
            await self._held.fail(invalid.error, invalid.details)
            log.info("job.invalid", job_id=self._held.job.id, code=invalid.error.code)
        except JobError as error:
            await self._held.fail(error)
        except ProcessEnded:
            log.warning("job.check_crashed", job_id=self._held.job.id, crashes=await self._held.crashed())
        finally:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _check_and_store(self) -> None:
        job = self._held.job
        minimum = self._ctx.settings.examples_minimum
        training = await self._datasets.find_or_make(job.training_file, "training_file", minimum)
        labels = await self._datasets.labels()
        if labels is not None:
            own_settings(find_objective(job.objective), job.hyperparameters).check_labels(labels.names)
        if job.validation_file is not None:
            await self._datasets.find_or_make(job.validation_file, "validation_file", 1)
        plan = await plan_job(self._base, job, training.num_examples, self._datasets)
        for warning in plan.warnings:
            await self._held.warn(warning)
        await self._held.validated(hyperparameters=plan.hyperparameters, total_steps=plan.total_steps)
        log.info("job.validated", job_id=job.id, examples=training.num_examples, steps=plan.total_steps)
