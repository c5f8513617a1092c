"""One claim of a check: both files are read as a job's validation reads them, described, and looked at for what is
probably wrong though it is valid; of a valid job, also the plan and what it needs of a worker's memory.

Needs no slot and no trainer. What is known of a valid file lies beside its tokenised rows, for every check of the same
content; what an invalid one says is in the check's result.
"""

import asyncio
import shutil
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from service.domain.check import (
    DESCRIBED,
    DESCRIPTION,
    MASKS,
    MASKS_INDEX,
    PROBLEMS_KEPT,
    SKETCH,
    Advice,
    CheckResult,
    Counts,
    Description,
    Failure,
    FileParam,
    FileReport,
    Plan,
    template_date,
)
from service.domain.dataset import StoredDataset
from service.domain.errors import JobError
from service.domain.event import NewEvent
from service.domain.file import Segment
from service.domain.json import JsonObject
from service.domain.memory import Memory, MemoryNeed, has_room
from service.domain.storage_keys import beside_dataset
from service.operations.check_work import HeldCheck
from service.operations.durations import Forecast, forecast
from service.operations.room import room
from service.recipes.base import Base
from service.recipes.dataset import Problem
from service.recipes.remedies import finding
from service.recipes.tuning import tuning_of
from workers.data.advice import Advisor, Sketch, leaks
from workers.data.base_text import BaseText
from workers.data.check import DatasetInvalid
from workers.data.lines import Glance
from workers.data.row_masks import counts, write_masks
from workers.data.tokenized import TokenizedDataset
from workers.files.disk import disk_errors
from workers.jobs.check_processes import CheckProcesses, ProcessEnded
from workers.jobs.datasets import FileDatasets, Subject
from workers.jobs.loading import Tokenizers
from workers.jobs.plan import plan_job
from workers.jobs.staging import fetch_file, store_file
from workers.model.footprint import footprint
from workers.trainer.process.plan import LIMIT_TOKENS
from workers.tunings import create_tuning
from workers.tunings.virtual_tokens import tokenized

log = structlog.get_logger()
STORED = (MASKS, MASKS_INDEX, DESCRIPTION, SKETCH)
DESCRIPTION_VERSION = 2  # of all that is stored beside tokenised rows; raised when any of it changes


class CheckRun:
    """One claim of one check."""

    def __init__(
        self,
        held: HeldCheck,
        base: Base,
        tokenizers: Tokenizers,
        scratch: Path,
        processes: CheckProcesses | None = None,
    ) -> None:
        """`processes` as `FileDatasets`."""
        self._ctx = held.ctx
        self._held = held
        self._check = held.check
        self._base = base
        self._tokenizers = tokenizers
        self._folder = scratch / f"{self._check.id}-{held.attempt}"
        check = self._check
        subject = Subject("check", check.id, check.objective, check.tuning, template_date(check))
        self._datasets = FileDatasets(held, subject, base, tokenizers, self._folder, processes)

    async def run(self) -> None:
        """Ends the check. Raises LeaseLost, BaseNotLoaded, and what unavailable parts raise."""
        try:
            with disk_errors():
                await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
                result = await self._result()
            await self._held.finish(result)
            log.info("check.done", check_id=self._check.id, valid=result.valid, warnings=len(result.warnings))
        except JobError as error:
            await self._held.fail(error)
            log.info("check.failed", check_id=self._check.id, code=error.code)
        except ProcessEnded:
            log.warning("check.crashed", check_id=self._check.id, crashes=await self._held.crashed())
        finally:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _result(self) -> CheckResult:
        check, minimum = self._check, self._ctx.settings.examples_minimum
        training = await self._file(check.training_file, "training_file", minimum)
        validation = None
        if check.validation_file is not None:
            validation = await self._file(check.validation_file, "validation_file", 1)
        warnings = [*training.warnings, *([] if validation is None else validation.warnings)]
        valid = training.report.valid and (validation is None or validation.report.valid)
        if training.sketch is not None and validation is not None and validation.sketch is not None:
            warnings += await asyncio.to_thread(leaks, training.sketch, validation.sketch)
        plan, planned = await self._plan(training.report) if valid else (None, [])
        expected = Forecast(None) if plan is None else await forecast(self._ctx, check, plan)
        space = _Room() if plan is None else await self._room(plan, training.report)
        report = None if validation is None else validation.report
        prints_the_date = await asyncio.to_thread(self._datasets.prints_the_date)
        return CheckResult(
            valid,
            training.report,
            report,
            plan,
            [*warnings, *planned, *space.warnings],
            prints_the_date,
            duration=expected.duration,
            duration_unknown=expected.unknown,
            memory=space.memory,
            memory_unknown=space.unknown,
        )

    async def _file(self, file_id: str, param: FileParam, minimum: int) -> "_File":
        segments = await self._datasets.segments(file_id, param)
        shared = await self._datasets.find(segments, param, minimum)
        known = None if shared is None else await self._known(shared)
        try:
            description, sketch = known or await self._describe(segments, file_id, param, minimum, shared)
        except DatasetInvalid as invalid:
            return _File(_invalid(invalid), [], None)
        report = FileReport(valid=True, error=None, num_problems=0, problems=[], counts=description.counts)
        return _File(report, [replace(advice, param=param) for advice in description.warnings], sketch)

    async def _known(self, shared: StoredDataset) -> tuple[Description, Sketch] | None:
        """What an earlier check of the same content found, if all of it is stored."""
        if shared.described != DESCRIPTION_VERSION:
            return None
        keys = [shared.object_key, *(beside_dataset(shared.object_key, name) for name in STORED)]
        if not all([await self._datasets.is_stored(key) for key in keys]):
            return None
        for name in (DESCRIPTION, SKETCH):
            await fetch_file(self._ctx.storage, beside_dataset(shared.object_key, name), self._folder / name)
        return await asyncio.to_thread(self._read)

    async def _describe(
        self, segments: Sequence[Segment], file_id: str, param: str, minimum: int, shared: StoredDataset | None
    ) -> tuple[Description, Sketch]:
        """Reads the file and stores what is found beside its tokenised rows. Raises DatasetInvalid or JobError."""
        rows = _Rows()
        dataset = await self._datasets.read(segments, file_id, param, minimum, rows)
        if shared is None or not await self._datasets.is_stored(shared.object_key):
            shared = await self._datasets.share(dataset, segments, param, minimum, missing=shared)
        await asyncio.to_thread(self._write, dataset, rows)
        for name in STORED:
            await store_file(self._ctx.storage, self._folder / name, beside_dataset(shared.object_key, name))
        await self._held.described(shared.object_key, DESCRIPTION_VERSION)
        return await asyncio.to_thread(self._read)

    def _write(self, dataset: TokenizedDataset, rows: "_Rows") -> None:
        tokenizer = self._tokenizers.of(self._base).tokenizer
        write_masks(dataset, rows.sequences, tokenizer, self._folder / MASKS, self._folder / MASKS_INDEX)
        found = counts(dataset, rows.sequences, self._datasets.row_tokens)
        description = Description(found, rows.advisor.advice())
        (self._folder / DESCRIPTION).write_bytes(DESCRIBED.dump_json(description))
        rows.advisor.sketch().save(self._folder / SKETCH)

    def _read(self) -> tuple[Description, Sketch]:
        description = DESCRIBED.validate_json((self._folder / DESCRIPTION).read_bytes())
        return description, Sketch.load(self._folder / SKETCH)

    async def _plan(self, training: FileReport) -> tuple[Plan, list[Advice]]:
        check, found = self._check, training.counts
        assert found is not None, "a valid file has been counted"
        planned = await plan_job(self._base, check, found.examples, self._datasets)
        epochs = int(planned.hyperparameters["n_epochs"])
        plan = Plan(
            hyperparameters=planned.hyperparameters,
            learning_rate=planned.learning_rate,
            steps_per_epoch=planned.steps_per_epoch,
            total_steps=planned.total_steps,
            tokens=epochs * found.tokens,
            trained_tokens=epochs * found.trained_tokens,
        )
        return plan, [_advice(warning) for warning in planned.warnings]

    async def _room(self, plan: Plan, training: FileReport) -> "_Room":
        """What the job needs of a worker's memory, and which of them have it."""
        base, tuning, counted = self._base, self._check.tuning, training.counts
        assert counted is not None, "a valid file has been counted"
        text = self._tokenizers.of(base)
        try:
            batch_size = int(plan.hyperparameters["batch_size"])
            need = await asyncio.to_thread(_memory_need, base, text, tuning, counted, batch_size)
        except JobError as error:  # the job would end with it
            return _Room(warnings=[Advice(error.code, error.message, error.param)])
        except (OSError, ValueError, RuntimeError) as error:  # an architecture may look at its numbers
            reason = f"{base.id}'s config.json does not show what {tuning['type']} needs ({type(error).__name__})"
            return _Room(unknown=f"The memory is unknown: {reason}.")
        found = await room(self._ctx, base.id, need)
        return _Room(found, warnings=[] if has_room(found) else [_does_not_fit(found)])


@dataclass(frozen=True)
class _Room:
    """The memory, or why it is unknown."""

    memory: Memory | None = None
    unknown: str | None = None
    warnings: Sequence[Advice] = ()


@dataclass(frozen=True)
class _File:
    """What was found of one file; an invalid one has no sketch."""

    report: FileReport
    warnings: list[Advice]
    sketch: Sketch | None


class _Rows:
    """Sees every row of a file while it is read."""

    def __init__(self) -> None:
        self.sequences = array("i")  # how many each row has
        self.advisor = Advisor()

    @property
    def signs(self) -> bool:
        return self.advisor.signs

    def see(self, seen: Glance, num_sequences: int) -> None:
        self.sequences.append(num_sequences)
        self.advisor.see(seen)


def _invalid(invalid: DatasetInvalid) -> FileReport:
    error = invalid.error
    problems = [Problem(**problem) for problem in invalid.details["problems"][:PROBLEMS_KEPT]]
    return FileReport(
        valid=False,
        error=Failure(error.code, error.message, error.param),
        num_problems=invalid.details["total"],
        problems=[finding(problem) for problem in problems],
        counts=None,
    )


def _memory_need(base: Base, text: BaseText, tuning: JsonObject, counted: Counts, batch_size: int) -> MemoryNeed:
    """By part. Blocks for a moment.

    Raises OSError, ValueError or RuntimeError where the base's config.json does not say, and JobError where the job
    would fail for its tuning.
    """
    size = footprint(base)
    parameter_bytes = create_tuning(tokenized(tuning_of(tuning), text.tokenizer), size.model, "checked").memory_bytes()
    return MemoryNeed.of(size.weights_bytes, parameter_bytes, size.activation_bytes(_widest(counted, batch_size)))


def _widest(counted: Counts, batch_size: int) -> int:
    """Tokens of the largest micro-batch, at most: an example that is longer than the limit goes alone."""
    example = counted.longest_tokens * -(-counted.sequences // max(1, counted.examples))
    return max(example, min(LIMIT_TOKENS, batch_size * example))


def _does_not_fit(found: Memory) -> Advice:
    free = max(worker.free_bytes or 0 for worker in found.workers)
    return Advice(
        "does_not_fit",
        f"No worker that is running has room for this job: it needs {found.needs.training_bytes} bytes beside the "
        f"base, and the most that is free is {free}. Try a smaller tuning, a smaller batch_size, or shorter rows.",
    )


def _advice(warning: NewEvent) -> Advice:
    return Advice(code=(warning.key or "warning").replace("-", "_"), message=warning.message)
