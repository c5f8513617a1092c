"""The first claim of a job: read its files, check every line, tokenise once, resolve "auto".

Needs no slot and no trainer, so an invalid file fails in seconds however busy the worker is. The rows are shared: jobs
for which `workers.data.content_key` is the same tokenise once. `workers.jobs.train` stages them.
"""

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from service.domain import event as wording
from service.domain import ids
from service.domain.dataset import StoredDataset
from service.domain.errors import JobError
from service.domain.file import Segment
from service.domain.job import template_date
from service.domain.storage_keys import dataset_key
from service.operations import lookups
from service.operations.progress import DataColumn, HeldJob
from service.recipes.base import Base
from service.recipes.objective import find_objective, resolve_auto
from service.recipes.safeguards import safeguards_of
from service.recipes.tuning import tuning_of
from service.storage import ObjectMissing
from service.storage.base import CHUNK_BYTES
from workers.data.batches import steps_per_epoch
from workers.data.check import DatasetInvalid, check_file, split_lines
from workers.data.content_key import content_key
from workers.data.template import ChatTemplate
from workers.data.tokenized import TokenizedDataset
from workers.files.disk import disk_errors
from workers.files.transfer import ObjectCorrupt, storage_retry
from workers.jobs.loading import Tokenizers
from workers.jobs.staging import fetch_segments, learning_rate, store_file

log = structlog.get_logger()
# Of the base's rate for a tuning. Wide, so that no deliberate choice is warned of.
SMALLEST_MULTIPLIER, LARGEST_MULTIPLIER = 0.01, 30.0


class JobValidation:
    """One claim of one job that is in `validating_files`."""

    def __init__(self, held: HeldJob, base: Base, tokenizers: Tokenizers, scratch: Path) -> None:
        self._ctx = held.ctx
        self._held = held
        self._base = base
        self._tokenizers = tokenizers
        self._folder = scratch / f"{held.job.id}-{held.attempt}-validation"

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
        finally:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _check_and_store(self) -> None:
        job = self._held.job
        minimum = self._ctx.settings.examples_minimum
        training = await self._dataset("training_data", job.training_file, "training_file", minimum)
        if job.validation_file is not None:
            await self._dataset("validation_data", job.validation_file, "validation_file", 1)
        await self._warn_of_date()
        hyperparameters = resolve_auto(find_objective(job.objective), job.hyperparameters, training.num_examples)
        await self._warn_of_rate(hyperparameters["learning_rate_multiplier"])
        await self._warn_of_patience(hyperparameters["n_epochs"])
        steps = steps_per_epoch(training.num_examples, hyperparameters["batch_size"]) * hyperparameters["n_epochs"]
        await self._held.validated(hyperparameters=hyperparameters, total_steps=steps)
        log.info("job.validated", job_id=job.id, examples=training.num_examples, steps=steps)

    async def _warn_of_rate(self, multiplier: float) -> None:
        """An absolute rate under the name of a multiplier would train nothing; the base's own rate is plausible."""
        if SMALLEST_MULTIPLIER <= multiplier <= LARGEST_MULTIPLIER:
            return
        usual = await learning_rate(self._base, tuning_of(self._held.job.tuning))
        await self._held.warn(wording.implausible_rate(multiplier * usual, usual, multiplier))

    async def _warn_of_patience(self, n_epochs: int) -> None:
        """The first evaluation is an improvement, so the earliest end is after patience + 1 of them."""
        rule = safeguards_of(self._held.job.safeguards).early_stopping
        if rule is not None and n_epochs < rule.patience + 2:
            await self._held.warn(wording.early_stopping_idle(rule.patience, n_epochs))

    async def _warn_of_date(self) -> None:
        """The embedded engine gives a model the date of its training; vLLM gives its own day's."""
        if self._base.serving.engine == "vllm" and await asyncio.to_thread(self._prints_the_date):
            await self._held.warn(wording.date_in_prompt(template_date(self._held.job)))

    def _prints_the_date(self) -> bool:
        return ChatTemplate(self._tokenizers.of(self._base)).prints_the_date

    async def _dataset(self, column: DataColumn, file_id: str, param: str, minimum: int) -> StoredDataset:
        """The file's tokenised rows, which the job names from now on: those of an earlier job, or new ones."""
        found = await lookups.find_file(self._ctx, file_id)
        if found is None:
            what = param.replace("_", " ")
            raise JobError(f"deleted_{param}", f"The job failed because the {what} was deleted", param)
        key = await asyncio.to_thread(self._key, found[1], minimum)
        shared = await self._held.use_dataset(column, key)
        if shared is not None and await self._is_stored(shared.object_key):
            log.info("data.reused", job_id=self._held.job.id, file_id=file_id)
            return shared
        tokenized = await self._check(found[1], file_id, param, minimum)
        object_key = dataset_key(ids.dataset_id(key))
        sha256 = await self._store(tokenized, object_key)
        made = StoredDataset(key, object_key, sha256, tokenized.num_examples)
        return await self._held.add_dataset(column, made, missing=None if shared is None else shared.object_key)

    def _key(self, segments: Sequence[Segment], minimum: int) -> str:
        return content_key(
            self._tokenizers.digest(self._base),
            [segment.sha256 for segment in segments],
            find_objective(self._held.job.objective),
            context_tokens=self._base.context_tokens,
            row_limit_bytes=self._ctx.settings.row_limit_bytes,
            examples_minimum=minimum,
            template_day=template_date(self._held.job) if self._prints_the_date() else None,
        )

    async def _is_stored(self, key: str) -> bool:
        """False where a database was restored without its storage."""
        try:
            await storage_retry(self._ctx.storage.size)(key)
        except ObjectMissing:
            return False
        return True

    async def _check(self, segments: Sequence[Segment], file_id: str, param: str, minimum: int) -> TokenizedDataset:
        path = self._folder / param
        try:
            await fetch_segments(self._ctx.storage, segments, path)
        except (ObjectCorrupt, ObjectMissing) as error:
            log.warning("data.unavailable", job_id=self._held.job.id, file_id=file_id, reason=type(error).__name__)
            message = f"The {param.replace('_', ' ')} is missing or damaged in storage; please upload it again."
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
            objective=find_objective(self._held.job.objective),
            day=template_date(self._held.job),
        )

    async def _store(self, dataset: TokenizedDataset, key: str) -> str:
        path = self._folder / "tokenized"
        await asyncio.to_thread(dataset.save, path)
        return await store_file(self._ctx.storage, path, key)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
