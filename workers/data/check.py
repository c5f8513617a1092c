"""One pass over a file that parses, renders and tokenises every line, or collects every problem.

Called in a worker thread by `workers.jobs.validate`, which streams the bytes. Lines are read in groups, whose distinct
texts are encoded in one call; what is found is said line by line, in order. Keeps a group and the tokens so far in
memory, never the whole file.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import chain, islice
from pathlib import Path
from typing import Any

from service.domain.errors import JobError
from service.recipes.dataset import (
    PROBLEMS_KEPT,
    ForeignRow,
    Problem,
    WrongFormat,
    details,
    parse_row,
    report,
    report_file,
    report_too_few,
    report_wrong_format,
)
from service.recipes.foreign_files import foreign_file
from service.recipes.format import Format, Row
from service.recipes.formats.labelled import LabelledRow
from service.recipes.formats.unpaired import UnpairedChatRow, UnpairedPromptRow
from service.recipes.json_lines import blank_lines, is_blank, longer_than
from service.recipes.objective import ObjectiveSettings
from workers.data.base_text import BaseText
from workers.data.encodings import Encodings
from workers.data.labels import Labels, LabelSet
from workers.data.messages import RenderError
from workers.data.mismatch import with_mismatched
from workers.data.packing import packed
from workers.data.render import AnyRow, Prepared, Rendered, Renderer
from workers.data.tokenized import DatasetBuilder, TokenizedDataset

GROUP_LINES = 512
GROUP_BYTES = 256 * 1024
GROUPS_AHEAD = 2  # that are parsed before the tokens of one are used

# Called with every row that renders, its line (from 1) and its sequences.
Observer = Callable[[AnyRow, int, Sequence[Rendered]], None]


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
) -> TokenizedDataset:
    """The file's rows, tokenised for the base. `param` is the job's field for this file; the error's code and
    wording depend on it.

    `day` is the current date that chat templates get. `observer` sees every row that is right, whether the file is or
    not. `labels` are those of the job's training file, where this is the validation file: it may have no others. The
    tokens are collected on disk, in `folder`; without one, in memory.

    Raises DatasetInvalid with every problem of the whole file; with one sentence if the file holds no JSON lines; or
    only with the wrong format if the job's objective cannot use the format of the first row. The dataset may have more
    rows than the file (see `Renderer.render`); `examples_minimum` is compared with the rows of the file.
    """
    rest = iter(lines)
    head = list(islice(rest, 2))
    if looks := foreign_file(head):
        raise DatasetInvalid(report_file(looks, param), details([Problem(1, "", f"the file {looks}")], 1))
    check = _Check(
        text, Renderer(text, context_tokens, day), context_tokens, row_limit_bytes, objective, observer, labels, folder
    )
    with ThreadPoolExecutor(1, thread_name_prefix="encoder") as encoder:
        for group in _encoded(_groups(enumerate(chain(head, rest), start=1)), check, encoder):
            for one in group.lines:
                check.read(one, group.encodings)
                if check.wrong_format is not None:
                    error = report_wrong_format(check.wrong_format, objective, file_id, param)
                    raise DatasetInvalid(error, details([], 0))
    check.finish()
    if check.num_problems:
        raise DatasetInvalid(
            report(check.problems, check.num_problems, param), details(check.problems, check.num_problems)
        )
    if check.num_trained < examples_minimum:
        raise DatasetInvalid(report_too_few(check.num_trained, examples_minimum, param), details([], 0))
    return check.dataset()


Found = tuple[type[Format], Row] | list[Problem] | WrongFormat | ForeignRow


@dataclass(frozen=True)
class _Line:
    """One line, parsed and rendered as text: what can be done with it before the lines ahead of it are known.

    `found` is None for a blank line, and `prepared` where there is no row.
    """

    number: int
    found: Found | None
    prepared: Prepared | None = None


def _groups(lines: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    """Lines to be encoded together: as many as bring enough text to all cores, and little enough to hold in memory."""
    group: list[tuple[int, bytes]] = []
    size = 0
    for number, line in lines:
        group.append((number, line))
        size += len(line)
        if len(group) == GROUP_LINES or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


@dataclass(frozen=True)
class _Group:
    """Lines whose texts are encoded together."""

    lines: Sequence[_Line]
    encodings: Encodings


def _encoded(groups: Iterable[Sequence[tuple[int, bytes]]], check: "_Check", encoder: Executor) -> Iterator[_Group]:
    """The groups in order. While the texts of some are encoded, the next ones are parsed and rendered."""
    waiting: deque[tuple[Sequence[_Line], Future[Encodings]]] = deque()
    for group in groups:
        lines = check.prepared(group)
        if not check.encodes_beside:
            yield _Group(lines, check.encode(lines))
            continue
        waiting.append((lines, encoder.submit(check.encode, lines)))
        if len(waiting) > GROUPS_AHEAD:
            yield _next(waiting)
    while waiting:
        yield _next(waiting)


def _next(waiting: deque[tuple[Sequence[_Line], Future[Encodings]]]) -> _Group:
    lines, encodings = waiting.popleft()
    return _Group(lines, encodings.result())


class _Check:
    """The state of one pass."""

    def __init__(
        self,
        text: BaseText,
        renderer: Renderer,
        context_tokens: int,
        row_limit_bytes: int,
        objective: type[ObjectiveSettings],
        observer: Observer | None = None,
        labels: LabelSet | None = None,
        folder: Path | None = None,
    ) -> None:
        self.encodes_beside = text.encodes_beside
        self._observer = observer
        self._renderer = renderer
        self._context_tokens = context_tokens
        self._row_limit_bytes = row_limit_bytes
        self._objective = objective
        self._format: type[Format] | None = None
        self._mixed = False
        self._blank_since: int | None = None
        self._foreign: dict[str, list[int]] = {}  # reason -> the first line, and how many lines
        self._rows = DatasetBuilder(folder)
        self._classes = Labels(labels)
        self.wrong_format: type[Format] | None = None  # of the first row, if the job's objective cannot use it
        self.num_examples = 0
        self._num_without_weight = 0  # rows with the weight 0, which are checked and not trained
        self.num_problems = 0
        self.problems: list[Problem] = []

    @property
    def num_trained(self) -> int:
        """Examples whose weight is not 0."""
        return self.num_examples - self._num_without_weight

    def prepared(self, lines: Sequence[tuple[int, bytes]]) -> list[_Line]:
        """These lines, parsed and rendered as text."""
        return [self._prepared(number, line) for number, line in lines]

    def encode(self, lines: Sequence[_Line]) -> Encodings:
        """The tokens of prepared lines. Another thread may call it while lines are prepared and read."""
        return self._renderer.encode([line.prepared for line in lines if line.prepared is not None])

    def _prepared(self, number: int, line: bytes) -> _Line:
        if is_blank(line, number):
            return _Line(number, None)
        if len(line) > self._row_limit_bytes:
            return _Line(number, [Problem(number, "", longer_than(self._row_limit_bytes))])
        try:
            found = parse_row(line, number, self._objective)
        except (WrongFormat, ForeignRow) as error:
            return _Line(number, error)
        if isinstance(found, list):
            return _Line(number, found)
        row = found[1]
        assert isinstance(row, AnyRow), "every format's rows are of one of these classes"
        return _Line(number, found, self._renderer.prepare(row))

    def read(self, line: _Line, encodings: Encodings) -> None:
        """Takes the next line of the file, with the tokens of its group."""
        number, found = line.number, line.found
        if found is None:
            self._blank_since = self._blank_since or number
            return
        self._end_blank_lines(number)
        self.num_examples += 1
        if isinstance(found, WrongFormat):
            self._refuse_format(found.format, number)
        elif isinstance(found, ForeignRow):
            self._foreign.setdefault(found.reason, [number, 0])[1] += 1
        elif isinstance(found, list):
            self._add(*found)
        elif self._same_format(found[0], number):
            assert line.prepared is not None, "a row was found"
            self._render(line.prepared, number, encodings)

    def finish(self) -> None:
        """Adds one problem for all rows of one shape of other tools, where the first of them is."""
        for reason, (first, count) in self._foreign.items():
            others = f"; {count - 1} later rows are of the same kind" if count > 1 else ""
            self._add(Problem(first, "", reason + others))
        if self.num_examples and not self.num_trained:
            self._add(Problem(1, "weight", "is 0, as that of every row: nothing would be trained"))
        if self.num_examples and not self.num_problems:
            self._add(*self._classes.problems())
        self.problems.sort(key=lambda problem: problem.line)

    def dataset(self) -> TokenizedDataset:
        if self._objective.unpaired:
            return with_mismatched(self._rows.build(), self._context_tokens)
        if self._objective.packed:
            return packed(self._rows.build(), self._context_tokens)
        of_format = self._format.rows_per_example if self._format else None
        return self._classes.column(self._rows.build(of_format or self._objective.rows_per_example))

    def _end_blank_lines(self, number: int) -> None:
        """Blank lines at the end of a file are ignored; a run of them between rows is one problem."""
        if self._blank_since is not None:
            self._add(Problem(self._blank_since, "", blank_lines(self._blank_since, number - 1)))
            self._blank_since = None

    def _refuse_format(self, format: type[Format], number: int) -> None:
        """The job's objective cannot use this format: an error of the whole file at its first row, else of this row."""
        if self.num_examples == 1:
            self.wrong_format = format
        else:
            self._same_format(format, number)

    def _same_format(self, format: type[Format], number: int) -> bool:
        """All rows of a file must have one format; only the first that differs is reported."""
        self._format = self._format or format
        if format is self._format:
            return True
        if not self._mixed:
            reason = f"has a different format from the file's first row: {format.rows} after {self._format.rows}"
            self._add(Problem(number, "", reason))
            self._mixed = True
        return False

    def _render(self, prepared: Prepared, number: int, encodings: Encodings) -> None:
        row = prepared.row
        try:
            sequences = self._renderer.finish(prepared, encodings)
        except RenderError as error:
            self._add(Problem(number, error.field, error.reason))
            return
        if isinstance(row, LabelledRow) and (problem := self._classes.find(row, number)):
            self._add(problem)
            return
        if self._observer is not None:
            self._observer(row, number, () if row.weight == 0 else sequences)  # the sequences that are trained
        if self.num_problems:
            return
        if row.weight == 0:
            self._num_without_weight += 1
            return
        if isinstance(row, LabelledRow):
            self._classes.add(row)
        of_rows = self._objective.rows_per_example > 1 or isinstance(row, LabelledRow)
        weight = row.weight if of_rows and row.weight != 1 else None
        for sequence, label in zip(sequences, self._labels(row, sequences), strict=True):
            self._rows.add(
                sequence.ids,
                sequence.trained,
                label=label,
                weight=weight,
                second=sequence.second,
                token_weights=sequence.weights,
            )

    def _labels(self, row: Row, sequences: Sequence[Rendered]) -> list[int | None]:
        """Of each sequence: 1 for a wanted answer, 0 for an unwanted one, if the objective reads answers one by one."""
        if not self._objective.unpaired:
            return [None] * len(sequences)
        if isinstance(row, UnpairedChatRow | UnpairedPromptRow):
            return [int(row.label)]
        return [1, 0]  # of a pair

    def _add(self, *problems: Problem) -> None:
        self.num_problems += len(problems)
        self.problems += problems[: PROBLEMS_KEPT - len(self.problems)]
