"""One pass over a file that parses, renders and tokenises every line, or collects every problem.

`workers.data.lines` reads each line by itself; here is what depends on other lines, in their order. `check_file` reads
a whole file in its caller's thread; `workers.jobs.check_processes` has parts of a large one read in other processes,
and brings the same lines to a `FileCheck` in the same order. Keeps the tokens so far, never the whole file.
"""

from array import array
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from service.domain.errors import JobError
from service.recipes.dataset import (
    PROBLEMS_KEPT,
    Problem,
    details,
    report,
    report_file,
    report_too_few,
    report_wrong_format,
)
from service.recipes.foreign_files import foreign_file
from service.recipes.format import FORMATS, Format
from service.recipes.json_lines import blank_lines
from service.recipes.objective import ObjectiveSettings
from workers.data.base_text import BaseText
from workers.data.examples import packed, with_mismatched
from workers.data.glance import glance
from workers.data.labels import Labels, LabelSet
from workers.data.lines import BlankLine, ForeignLine, Glance, InvalidLine, Line, LineReader, OtherFormatLine, RowLine
from workers.data.tokenized import DatasetBuilder, TokenizedDataset

HEAD_LINES = 2  # that show whether a file holds JSON lines at all


class Observer(Protocol):
    """Who looks at the rows of a file beside its check."""

    @property
    def signs(self) -> bool:
        """Whether the next row's signature is needed; once it is not, no later one is."""

    def see(self, seen: Glance, num_sequences: int) -> None:
        """The next row that is right, and how many sequences of it are trained."""


class DatasetInvalid(Exception):
    """The file cannot be used for training: the job's error, and the problems as the data of an event."""

    def __init__(self, error: JobError, details: dict[str, Any]) -> None:
        super().__init__(error.message)
        self.error = error
        self.details = details


def check_file(
    lines: Iterable[bytes],
    text: BaseText,
    *,
    context_tokens: int,
    row_limit_bytes: int,
    examples_minimum: int,
    param: str,
    file_id: str,
    objective: type[ObjectiveSettings],
    day: date | None = None,
    observer: Observer | None = None,
    labels: LabelSet | None = None,
    folder: Path | None = None,
    prefix_tokens: int = 0,
    turns_apart: bool = False,
) -> TokenizedDataset:
    """The file's rows, tokenised for the base. `day` is the current date that chat templates get, `turns_apart` as
    `Renderer`; all else is as `FileCheck` says, and so is what is raised.
    """
    rest = iter(lines)
    head = list(islice(rest, HEAD_LINES))
    check = FileCheck(
        head,
        context_tokens=context_tokens,
        examples_minimum=examples_minimum,
        param=param,
        file_id=file_id,
        objective=objective,
        observer=observer,
        labels=labels,
        folder=folder,
        prefix_tokens=prefix_tokens,
    )
    reader = LineReader(
        text,
        context_tokens=context_tokens,
        row_limit_bytes=row_limit_bytes,
        objective=objective,
        day=day,
        look=None if observer is None else glance,
        prefix_tokens=prefix_tokens,
        turns_apart=turns_apart,
    )
    for group in reader.read_beside(enumerate(chain(head, rest), start=1)):
        check.read(group)
        reader.signs = check.signs
    return check.finish()


class FileCheck:
    """The check of one file: what its lines, read in their order, make of the whole.

    `head` are the first lines of the file, at most HEAD_LINES, perhaps cut. `param` is the job's field for this file;
    the error's code and wording depend on it. `observer` sees every row that is right, whether the file is or not.
    `labels` are those of the job's training file, where this is the validation file: it may have no others. The tokens
    are collected on disk, in `folder`; without one, in memory. `context_tokens` and `prefix_tokens` as `Renderer`.

    Raises DatasetInvalid, from `finish` with every problem of the whole file; at once with one sentence if the file
    holds no JSON lines; from the first `read` only with the wrong format if the job's objective cannot use the format
    of the first row.
    """

    def __init__(
        self,
        head: Sequence[bytes],
        *,
        context_tokens: int,
        examples_minimum: int,
        param: str,
        file_id: str,
        objective: type[ObjectiveSettings],
        observer: Observer | None = None,
        labels: LabelSet | None = None,
        folder: Path | None = None,
        prefix_tokens: int = 0,
    ) -> None:
        if looks := foreign_file(head):
            raise DatasetInvalid(report_file(looks, param), details([Problem(1, "", f"the file {looks}")], 1))
        self._row_tokens = context_tokens - prefix_tokens
        self._examples_minimum = examples_minimum
        self._param = param
        self._file_id = file_id
        self._objective = objective
        self._observer = observer
        self._number = 0  # of the last line that was read
        self._format: str | None = None
        self._mixed = False
        self._blank_since: int | None = None
        self._foreign: dict[str, list[int]] = {}  # reason -> the first line, and how many lines
        self._rows = DatasetBuilder(folder)
        self._classes = Labels(labels)
        self._num_examples = 0
        self._num_without_weight = 0  # rows with the weight 0, which are checked and not trained
        self._num_problems = 0
        self._problems: list[Problem] = []

    @property
    def signs(self) -> bool:
        """Whether the next row's signature is needed; once it is not, no later one is."""
        return self._observer is not None and self._observer.signs

    def read(self, lines: Iterable[Line]) -> None:
        """Takes the next lines of the file."""
        for line in lines:
            self._number += 1
            self._read(line)

    def finish(self) -> TokenizedDataset:
        """The dataset, after the last line. It may have more rows than the file (see `Renderer.render`), of which
        there must be at least `examples_minimum`.
        """
        for reason, (first, count) in self._foreign.items():  # one problem for all rows of one shape of other tools
            others = f"; {count - 1} later rows are of the same kind" if count > 1 else ""
            self._add(Problem(first, "", reason + others))
        num_trained = self._num_examples - self._num_without_weight
        if self._num_examples and not num_trained:
            self._add(Problem(1, "weight", "is 0, as that of every row: nothing would be trained"))
        if self._num_examples and not self._num_problems:
            self._add(*self._classes.problems())
        if self._num_problems:
            found, total = sorted(self._problems, key=lambda problem: problem.line), self._num_problems
            raise DatasetInvalid(report(found, total, self._param), details(found, total))
        if num_trained < self._examples_minimum:
            raise DatasetInvalid(report_too_few(num_trained, self._examples_minimum, self._param), details([], 0))
        return self._dataset()

    def _read(self, line: Line) -> None:
        number = self._number
        if isinstance(line, BlankLine):
            self._blank_since = self._blank_since or number
            return
        self._end_blank_lines(number)
        self._num_examples += 1
        if isinstance(line, RowLine):
            if self._same_format(line.format, number):
                self._take(line, number)
        elif isinstance(line, InvalidLine):
            self._add(*(Problem(number, field, reason) for field, reason in line.problems))
        elif isinstance(line, ForeignLine):
            self._foreign.setdefault(line.reason, [number, 0])[1] += 1
        else:
            self._refuse_format(line, number)

    def _dataset(self) -> TokenizedDataset:
        if self._objective.unpaired:
            return with_mismatched(self._rows.build(), self._row_tokens)
        if self._objective.packed:
            return packed(self._rows.build(), self._row_tokens)
        of_format = _format(self._format).rows_per_example if self._format else None
        return self._classes.column(self._rows.build(of_format or self._objective.rows_per_example))

    def _end_blank_lines(self, number: int) -> None:
        """Blank lines at the end of a file are ignored; a run of them between rows is one problem."""
        if self._blank_since is not None:
            self._add(Problem(self._blank_since, "", blank_lines(self._blank_since, number - 1)))
            self._blank_since = None

    def _refuse_format(self, line: OtherFormatLine, number: int) -> None:
        """The job's objective cannot use this format: an error of the whole file at its first row, else of this row."""
        if self._num_examples == 1:
            error = report_wrong_format(_format(line.format), self._objective, self._file_id, self._param)
            raise DatasetInvalid(error, details([], 0))
        self._same_format(line.format, number)

    def _same_format(self, format: str, number: int) -> bool:
        """All rows of a file must have one format; only the first that differs is reported."""
        self._format = self._format or format
        if format == self._format:
            return True
        if not self._mixed:
            first = _format(self._format).rows
            reason = f"has a different format from the file's first row: {_format(format).rows} after {first}"
            self._add(Problem(number, "", reason))
            self._mixed = True
        return False

    def _take(self, row: RowLine, number: int) -> None:
        if row.problem is not None:
            self._add(Problem(number, *row.problem))
            return
        if row.labels is not None and (problem := self._classes.find(row.labels, number)):
            self._add(problem)
            return
        if self._observer is not None:
            assert row.glance is not None, "the reader of the lines knows of the observer"
            self._observer.see(row.glance, 0 if row.weight == 0 else len(row.sequences))
        if self._num_problems:
            return
        if row.weight == 0:
            self._num_without_weight += 1
            return
        if row.labels is not None:
            self._classes.add(row.labels)
        of_rows = self._objective.rows_per_example > 1 or row.labels is not None
        weight = row.weight if of_rows and row.weight != 1 else None
        for sequence, label in zip(row.sequences, self._labels(row), strict=True):
            self._rows.add(
                array("i", sequence.ids),
                sequence.trained,
                label=label,
                weight=weight,
                second=None if sequence.second is None else array("i", sequence.second),
                token_weights=None if sequence.weights is None else array("f", sequence.weights),
            )

    def _labels(self, row: RowLine) -> list[int | None]:
        """Of each sequence: 1 for a wanted answer, 0 for an unwanted one, if the objective reads answers one by one."""
        if not self._objective.unpaired:
            return [None] * len(row.sequences)
        if row.wanted is not None:
            return [int(row.wanted)]
        return [1, 0]  # of a pair

    def _add(self, *problems: Problem) -> None:
        self._num_problems += len(problems)
        self._problems += problems[: PROBLEMS_KEPT - len(self._problems)]


def _format(name: str) -> type[Format]:
    found = FORMATS.find(name)
    assert found is not None, "lines name registered formats"
    return found
