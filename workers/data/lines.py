"""One line of a training file by itself: parsed, rendered, tokenised, or what is wrong with it.

Its number and what depends on other lines (that rows have one format, their labels, blank lines between them) are
`workers.data.check`'s. What is found of a line is made of types that msgspec writes as bytes, since lines may be read
in other processes. Lines are read in groups, whose distinct texts are encoded in one call; keeps some groups in memory.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

from msgspec import Struct

from service.recipes.dataset import ForeignRow, WrongFormat, parse_row
from service.recipes.format import Format, Row
from service.recipes.formats.labelled import LabelledRow
from service.recipes.formats.unpaired import UnpairedChatRow, UnpairedPromptRow
from service.recipes.json_lines import is_blank, longer_than
from service.recipes.objective import ObjectiveSettings
from workers.data.base_text import BaseText
from workers.data.encodings import Encodings
from workers.data.labels import RowLabels, row_labels
from workers.data.messages import RenderError
from workers.data.render import AnyRow, Prepared, Rendered, Renderer

GROUP_LINES = 512
GROUP_BYTES = 256 * 1024
GROUPS_AHEAD = 2  # that are parsed before the tokens of one are used

FieldProblem: TypeAlias = tuple[str, str]  # field and reason of `service.recipes.dataset.Problem`


class BlankLine(Struct, frozen=True, tag="blank", array_like=True):
    """Nothing, or space alone."""


class InvalidLine(Struct, frozen=True, tag="invalid", array_like=True):
    """No row of a format that the objective reads."""

    problems: list[FieldProblem]


class OtherFormatLine(Struct, frozen=True, tag="other", array_like=True):
    """A row of a format that the objective does not read."""

    format: str


class ForeignLine(Struct, frozen=True, tag="foreign", array_like=True):
    """A row of another tool."""

    reason: str


class SequenceBytes(Struct, frozen=True, array_like=True):
    """One sequence of a row, its numbers as this machine stores them."""

    ids: bytes  # of 4 each
    trained: bytes  # of 1 each
    weights: bytes | None  # float32 of each token, where a trained one has another weight than 1
    second: bytes | None  # as `ids`


class Glance(Struct, frozen=True, array_like=True):
    """What `workers.data.advice` sees of one row; `row`, `question` and `answer` are hashes."""

    row: int
    question: int
    answer: int
    signature: bytes | None  # of its words, uint32; None: of too few words, or none was asked for
    empty: bool  # an answer without a word
    label: bool  # an answer as short as one
    kinds: list[str]  # of personal data and keys


class RowLine(Struct, frozen=True, tag="row", array_like=True):
    """A row. With a `problem` it cannot be rendered, and has no sequences."""

    format: str
    problem: FieldProblem | None = None
    sequences: list[SequenceBytes] = []
    weight: float | None = None
    labels: RowLabels | None = None  # of a row for classification
    wanted: bool | None = None  # of an answer without a pair
    glance: Glance | None = None


Look: TypeAlias = Callable[[AnyRow, bool], Glance]  # whether with the signature
Line: TypeAlias = BlankLine | InvalidLine | OtherFormatLine | ForeignLine | RowLine


@dataclass(frozen=True)
class _Rendering:
    """A row, rendered as text."""

    format: type[Format]
    row: AnyRow
    prepared: Prepared


_Begun: TypeAlias = BlankLine | InvalidLine | OtherFormatLine | ForeignLine | _Rendering


class LineReader:
    """Reads the lines of one file, or of parts of one, for one base and objective.

    `context_tokens`, `prefix_tokens` and `turns_apart` as `Renderer`. `day` is the current date that chat templates
    get. With `look`, rows have what it sees, signatures included while `signs` is true.
    """

    def __init__(
        self,
        text: BaseText,
        *,
        context_tokens: int,
        row_limit_bytes: int,
        objective: type[ObjectiveSettings],
        day: date | None = None,
        look: Look | None = None,
        prefix_tokens: int = 0,
        turns_apart: bool = False,
    ) -> None:
        self.signs = True
        self._look = look
        self._encodes_beside = text.encodes_beside
        self._renderer = Renderer(text, context_tokens, day, prefix_tokens, turns_apart)
        self._row_limit_bytes = row_limit_bytes
        self._objective = objective

    def read_beside(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[list[Line]]:
        """The lines in groups, in order. While a thread encodes the texts of some, the next are parsed and rendered."""
        if not self._encodes_beside:
            yield from self.read(lines)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="encoder") as encoder:
            yield from self._read_beside(lines, encoder)

    def read(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[list[Line]]:
        """As `read_beside`, in this thread alone. Lines have their number (1-based), of which only the first counts."""
        for group in _groups(lines):
            begun = self._begin(group)
            yield self._finish(begun, self._encode(begun))

    def _read_beside(self, lines: Iterable[tuple[int, bytes]], encoder: Executor) -> Iterator[list[Line]]:
        waiting: deque[tuple[list[_Begun], Future[Encodings]]] = deque()
        for group in _groups(lines):
            begun = self._begin(group)
            waiting.append((begun, encoder.submit(self._encode, begun)))
            if len(waiting) > GROUPS_AHEAD:
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    def _next(self, waiting: deque[tuple[list[_Begun], Future[Encodings]]]) -> list[Line]:
        begun, encodings = waiting.popleft()
        return self._finish(begun, encodings.result())

    def _begin(self, group: Sequence[tuple[int, bytes]]) -> list[_Begun]:
        return [self._parsed(number, line) for number, line in group]

    def _encode(self, begun: Sequence[_Begun]) -> Encodings:
        """The tokens of these lines. Another thread may call it while lines are begun and finished."""
        return self._renderer.encode([line.prepared for line in begun if isinstance(line, _Rendering)])

    def _finish(self, begun: Sequence[_Begun], encodings: Encodings) -> list[Line]:
        return [self._row(line, encodings) if isinstance(line, _Rendering) else line for line in begun]

    def _parsed(self, number: int, line: bytes) -> _Begun:
        if is_blank(line, number):
            return BlankLine()
        if len(line) > self._row_limit_bytes:
            return InvalidLine([("", longer_than(self._row_limit_bytes))])
        try:
            found = parse_row(line, number, self._objective)
        except WrongFormat as wrong:
            return OtherFormatLine(wrong.format.name)
        except ForeignRow as foreign:
            return ForeignLine(foreign.reason)
        if isinstance(found, list):
            return InvalidLine([(problem.field, problem.reason) for problem in found])
        format, row = found
        assert isinstance(row, AnyRow), "every format's rows are of one of these classes"
        return _Rendering(format, row, self._renderer.prepare(row))

    def _row(self, line: _Rendering, encodings: Encodings) -> RowLine:
        row = line.row
        try:
            sequences = self._renderer.finish(line.prepared, encodings)
        except RenderError as error:
            return RowLine(line.format.name, (error.field, error.reason))
        return RowLine(
            line.format.name,
            sequences=[_bytes(sequence) for sequence in sequences],
            weight=row.weight,
            labels=row_labels(row) if isinstance(row, LabelledRow) else None,
            wanted=_wanted(row),
            glance=None if self._look is None else self._look(row, self.signs),
        )


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


def _wanted(row: Row) -> bool | None:
    return row.label if isinstance(row, UnpairedChatRow | UnpairedPromptRow) else None


def _bytes(sequence: Rendered) -> SequenceBytes:
    weights, second = sequence.weights, sequence.second
    return SequenceBytes(
        array("i", sequence.ids).tobytes(),
        bytes(sequence.trained),
        None if weights is None else array("f", weights).tobytes(),
        None if second is None else array("i", second).tobytes(),
    )
