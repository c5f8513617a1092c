"""The tokenised rows of a file: those of an earlier job or check of the same content, or new ones, stored and shared.

The one code that reads a file for a job's validation and for a check. `workers.data.content_key` says what the same
content is. Has no job states.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Protocol

import structlog

from service.domain import ids
from service.domain.dataset import StoredDataset
from service.domain.errors import JobError
from service.domain.file import Segment
from service.domain.json import JsonObject
from service.domain.storage_keys import dataset_key
from service.installation.context import Context
from service.operations import lookups
from service.operations.progress import DataColumn
from service.recipes.base import Base
from service.recipes.formats.labelled import Labelled
from service.recipes.json_lines import split_lines
from service.recipes.objective import find_objective
from service.recipes.tuning import TuningSettings, row_tokens, tuning_of
from service.storage import ObjectMissing
from service.storage.base import CHUNK_BYTES
from workers.data.check import HEAD_LINES, FileCheck, Observer, check_file
from workers.data.content_key import content_key
from workers.data.labels import LabelSet
from workers.data.template import ChatTemplate
from workers.data.tokenized import TokenizedDataset
from workers.files.transfer import ObjectCorrupt, storage_retry
from workers.jobs.check_processes import HERE_ALONE, CheckProcesses, ProcessesUnusable, read_in_processes
from workers.jobs.loading import Tokenizers
from workers.jobs.part_reader import PartOrder
from workers.jobs.staging import fetch_file, fetch_segments, store_file

log = structlog.get_logger()
COLUMNS: dict[str, DataColumn] = {"training_file": "training_data", "validation_file": "validation_data"}


class DatasetHolder(Protocol):
    """A claim of what names the rows: `HeldJob` or `HeldCheck`."""

    ctx: Context

    async def use_dataset(self, column: DataColumn, key: str) -> StoredDataset | None: ...

    async def add_dataset(
        self, column: DataColumn, stored: StoredDataset, missing: str | None = None
    ) -> StoredDataset: ...


@dataclass(frozen=True)
class Subject:
    """For what files are read: `noun` is "job" or "check"; `day` is what chat templates are given as today's."""

    noun: str
    id: str
    objective: str
    tuning: JsonObject
    day: date


class FileDatasets:
    """Reads the files of one subject, into a folder that exists."""

    def __init__(
        self,
        held: DatasetHolder,
        subject: Subject,
        base: Base,
        tokenizers: Tokenizers,
        folder: Path,
        processes: CheckProcesses | None = None,
    ) -> None:
        """`processes` are those that all checks of this worker share; without them, files are read in this one."""
        self._held = held
        self._processes = processes or CheckProcesses(HERE_ALONE)
        self._ctx = held.ctx
        self.subject = subject
        self._base = base
        self._tokenizers = tokenizers
        self._folder = folder
        self._training: StoredDataset | None = None  # the tokenised training file, once it is known

    @property
    def row_tokens(self) -> int:
        """How many tokens a row may have. Raises JobError for a tuning that is missing."""
        return row_tokens(self._base, self._tuning)

    @property
    def _tuning(self) -> TuningSettings:
        return tuning_of(self.subject.tuning)

    def prints_the_date(self) -> bool:
        """Whether the base's chat template shows today's date. Blocks while the tokenizer loads."""
        return ChatTemplate(self._tokenizers.of(self._base)).prints_the_date

    async def find_or_make(self, file_id: str, param: str, minimum: int) -> StoredDataset:
        """The file's tokenised rows, which the subject names from now on. Raises DatasetInvalid or JobError."""
        segments = await self.segments(file_id, param)
        shared = await self.find(segments, param, minimum)
        if shared is not None and await self.is_stored(shared.object_key):
            log.info("data.reused", subject=self.subject.id, file_id=file_id)
            return shared
        tokenized = await self.read(segments, file_id, param, minimum)
        return await self.share(tokenized, segments, param, minimum, missing=shared)

    async def labels(self) -> LabelSet | None:
        """Those of the training file, which was found or made before; None where its rows have none.

        Raises JobError where storage has lost it since.
        """
        if self._training is None or Labelled not in find_objective(self.subject.objective).formats:
            return None
        path = self._folder / "labels"
        try:
            if await fetch_file(self._ctx.storage, self._training.object_key, path) != self._training.sha256:
                raise ObjectCorrupt(self._training.object_key)
        except (ObjectCorrupt, ObjectMissing) as error:
            log.warning("data.unavailable", subject=self.subject.id, key=self._training.object_key)
            message = "The tokenised training file is missing or damaged in storage. Please try again."
            raise JobError("data_unavailable", message, "training_file") from error
        return LabelSet.of(await asyncio.to_thread(TokenizedDataset.load, path))

    async def _known_labels(self, param: str) -> LabelSet | None:
        """The labels that the file may have: a validation file only those of the training file."""
        return await self.labels() if param == "validation_file" else None

    async def segments(self, file_id: str, param: str) -> list[Segment]:
        """Where the file's bytes lie. Raises JobError for a deleted file."""
        found = await lookups.find_file(self._ctx, file_id)
        if found is None:
            message = f"The {self.subject.noun} failed because the {param.replace('_', ' ')} was deleted"
            raise JobError(f"deleted_{param}", message, param)
        return found[1]

    async def find(self, segments: Sequence[Segment], param: str, minimum: int) -> StoredDataset | None:
        """Rows of the same content, which the subject names from now on. Storage may have lost them."""
        key = await asyncio.to_thread(self._key, segments, minimum, await self._known_labels(param))
        found = await self._held.use_dataset(COLUMNS[param], key)
        self._note(param, found)
        return found

    async def read(
        self, segments: Sequence[Segment], file_id: str, param: str, minimum: int, observer: Observer | None = None
    ) -> TokenizedDataset:
        """Fetches and checks the file, a large one in several processes; `observer` sees its rows.

        Raises DatasetInvalid, JobError, and ProcessEnded: then the attempt has crashed, though this process has not.
        """
        path = self._folder / param
        try:
            await fetch_segments(self._ctx.storage, segments, path)
        except (ObjectCorrupt, ObjectMissing) as error:
            log.warning("data.unavailable", subject=self.subject.id, file_id=file_id, reason=type(error).__name__)
            message = f"The {param.replace('_', ' ')} is missing or damaged in storage; please upload it again."
            raise JobError("data_unavailable", message, param) from error
        about = _About(path, file_id, param, minimum, observer, await self._known_labels(param))
        file_bytes = (await asyncio.to_thread(path.stat)).st_size
        with self._processes.taken(file_bytes) as count:
            if count:
                try:
                    return await self._read_in_processes(about, file_bytes, count)
                except ProcessesUnusable as error:
                    log.warning("check.processes_unusable", base=self._base.id, reason=str(error))
            return await asyncio.to_thread(self._read, about)

    async def share(
        self,
        tokenized: TokenizedDataset,
        segments: Sequence[Segment],
        param: str,
        minimum: int,
        *,
        missing: StoredDataset | None,
    ) -> StoredDataset:
        """Stores new rows for all that need the same; returns those that the subject names now, perhaps another's.

        `missing` are those that were found and that storage no longer has.
        """
        key = await asyncio.to_thread(self._key, segments, minimum, await self._known_labels(param))
        object_key = dataset_key(ids.dataset_id(key))
        path = self._folder / "tokenized"
        await asyncio.to_thread(tokenized.save, path)
        sha256 = await store_file(self._ctx.storage, path, object_key)
        made = StoredDataset(key, object_key, sha256, tokenized.num_examples)
        lost = None if missing is None else missing.object_key
        used = await self._held.add_dataset(COLUMNS[param], made, missing=lost)
        self._note(param, used)
        return used

    def _note(self, param: str, stored: StoredDataset | None) -> None:
        if param == "training_file":
            self._training = stored

    async def is_stored(self, key: str) -> bool:
        """False where a database was restored without its storage."""
        try:
            await storage_retry(self._ctx.storage.size)(key)
        except ObjectMissing:
            return False
        return True

    def _key(self, segments: Sequence[Segment], minimum: int, labels: LabelSet | None) -> str:
        return content_key(
            self._tokenizers.digest(self._base),
            [segment.sha256 for segment in segments],
            find_objective(self.subject.objective),
            row_tokens=self.row_tokens,
            row_limit_bytes=self._ctx.settings.row_limit_bytes,
            examples_minimum=minimum,
            template_day=self.subject.day if self.prints_the_date() else None,
            labels=labels,
            turns_apart=self._tuning.edits_prompts,
        )

    def _read(self, about: "_About") -> TokenizedDataset:
        limit = self._ctx.settings.row_limit_bytes
        return check_file(
            split_lines(_chunks(about.path), limit),
            self._tokenizers.of(self._base),
            context_tokens=self._base.context_tokens,
            row_limit_bytes=limit,
            examples_minimum=about.minimum,
            param=about.param,
            file_id=about.file_id,
            objective=find_objective(self.subject.objective),
            day=self.subject.day,
            observer=about.observer,
            labels=about.labels,
            folder=about.path.parent,
            prefix_tokens=self._tuning.prefix_tokens,
            turns_apart=self._tuning.edits_prompts,
        )

    async def _read_in_processes(self, about: "_About", file_bytes: int, count: int) -> TokenizedDataset:
        """The same with so many processes. Raises ProcessesUnusable where `observer` has seen no row yet."""
        check = await asyncio.to_thread(self._begin, about)
        order = PartOrder(
            path=str(about.path.absolute()),
            file_bytes=file_bytes,
            base=self._base,
            objective=self.subject.objective,
            row_limit_bytes=self._ctx.settings.row_limit_bytes,
            day=self.subject.day,
            glances=about.observer is not None,
            prefix_tokens=self._tuning.prefix_tokens,
            turns_apart=self._tuning.edits_prompts,
        )
        digest = await asyncio.to_thread(self._tokenizers.digest, self._base)
        await read_in_processes(check, order, count, digest)
        return await asyncio.to_thread(check.finish)

    def _begin(self, about: "_About") -> FileCheck:
        return FileCheck(
            list(islice(split_lines(_chunks(about.path), self._ctx.settings.row_limit_bytes), HEAD_LINES)),
            context_tokens=self._base.context_tokens,
            examples_minimum=about.minimum,
            param=about.param,
            file_id=about.file_id,
            objective=find_objective(self.subject.objective),
            observer=about.observer,
            labels=about.labels,
            folder=about.path.parent,
            prefix_tokens=self._tuning.prefix_tokens,
        )


@dataclass(frozen=True)
class _About:
    """A file that was fetched, and what its check is for."""

    path: Path
    file_id: str
    param: str
    minimum: int
    observer: Observer | None
    labels: LabelSet | None


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
