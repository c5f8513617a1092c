"""The first claim of a job: read its files, check every line, tokenise once, resolve "auto".

Needs no slot and no trainer, so a bad file fails in seconds however busy the worker is. What it makes lies in storage
under the job's `data_prefix` until `workers.jobs.train` stages it.
"""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import structlog

from service.domain import event as wording
from service.domain.base import Base
from service.domain.errors import JobError
from service.domain.job import Claim, template_date
from service.domain.methods import resolve_auto
from service.installation.context import Context
from service.operations import lookups, progress
from service.storage import ObjectMissing
from service.storage.base import CHUNK_BYTES
from workers.data.base_text import BaseText
from workers.data.batches import steps_per_epoch
from workers.data.check import DatasetInvalid, check_file, split_lines
from workers.data.template import ChatTemplate
from workers.data.tokenized import TokenizedDataset
from workers.files.disk import disk_errors
from workers.jobs.staging import TRAINING, VALIDATION, ObjectCorrupt, fetch_segments, store_file
from workers.model.load import load_text

log = structlog.get_logger()


class Tokenizers:
    """The tokenizers of the bases that this worker has checked files for, each loaded once."""

    def __init__(self) -> None:
        self._loaded: dict[str, BaseText] = {}

    def of(self, base: Base) -> BaseText:
        """Blocks while it loads. Raises OSError where there is none."""
        if base.id not in self._loaded:
            self._loaded[base.id] = load_text(base)
        return self._loaded[base.id]


class JobValidation:
    """One claim of one job that is in `validating_files`."""

    def __init__(self, ctx: Context, claim: Claim, base: Base, tokenizers: Tokenizers, scratch: Path) -> None:
        self._ctx = ctx
        self._claim = claim
        self._base = base
        self._tokenizers = tokenizers
        self._folder = scratch / f"{claim.job.id}-{claim.attempt}-validation"

    async def run(self) -> None:
        """Brings the job to `queued` or `failed`. Raises LeaseLost and the errors of parts that are away."""
        try:
            with disk_errors():
                await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
                await self._check_and_store()
        except DatasetInvalid as invalid:
            await progress.fail(self._ctx, self._claim, invalid.error, invalid.details)
            log.info("job.invalid", job_id=self._claim.job.id, code=invalid.error.code)
        except JobError as error:
            await progress.fail(self._ctx, self._claim, error)
        finally:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _check_and_store(self) -> None:
        job = self._claim.job
        training = await self._check(job.training_file, "training_file", self._ctx.settings.examples_minimum)
        validation = None
        if job.validation_file is not None:
            validation = await self._check(job.validation_file, "validation_file", 1)
        await self._warn_of_date()
        hyperparameters = resolve_auto(job.hyperparameters, training.num_examples)
        prefix = f"jobs/{job.id}/data/{self._claim.attempt}/"
        await self._store(training, prefix + TRAINING)
        if validation is not None:
            await self._store(validation, prefix + VALIDATION)
        steps = steps_per_epoch(training.num_examples, hyperparameters["batch_size"]) * hyperparameters["n_epochs"]
        await progress.validated(
            self._ctx, self._claim, hyperparameters=hyperparameters, data_prefix=prefix, total_steps=steps
        )
        log.info("job.validated", job_id=job.id, examples=training.num_examples, steps=steps)

    async def _warn_of_date(self) -> None:
        """The embedded engine gives a model the date of its training; vLLM gives its own day's."""
        if self._base.serving.engine == "vllm":
            template = ChatTemplate(await asyncio.to_thread(self._tokenizers.of, self._base))
            if await asyncio.to_thread(lambda: template.prints_the_date):
                warning = wording.date_in_prompt(template_date(self._claim.job))
                await progress.warn(self._ctx, self._claim, warning)

    async def _check(self, file_id: str, param: str, minimum: int) -> TokenizedDataset:
        found, what = await lookups.find_file(self._ctx, file_id), param.replace("_", " ")
        if found is None:
            raise JobError(f"deleted_{param}", f"The job failed because the {what} was deleted", param)
        path = self._folder / param
        try:
            await fetch_segments(self._ctx.storage, found[1], path)
        except (ObjectCorrupt, ObjectMissing) as error:
            log.warning("data.unavailable", job_id=self._claim.job.id, file_id=file_id, reason=type(error).__name__)
            message = f"The {what} is missing or damaged in storage; please upload it again."
            raise JobError("data_unavailable", message, param) from error
        return await asyncio.to_thread(self._read, path, file_id, param, minimum)

    def _read(self, path: Path, file_id: str, param: str, minimum: int) -> TokenizedDataset:
        limit = self._ctx.settings.row_limit_bytes
        return check_file(
            split_lines(_chunks(path), limit),
            self._tokenizers.of(self._base),
            context_tokens=self._base.context_tokens,
            row_limit_bytes=limit,
            examples_minimum=minimum,
            param=param,
            file_id=file_id,
            method=self._claim.job.objective,
            day=template_date(self._claim.job),
        )

    async def _store(self, dataset: TokenizedDataset, key: str) -> None:
        path = self._folder / "tokenized"
        await asyncio.to_thread(dataset.save, path)
        await store_file(self._ctx.storage, path, key)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
