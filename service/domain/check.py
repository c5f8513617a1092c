"""A check: everything that can be known of a job before it exists, kept under an id of its own.

    queued --> running --> succeeded | failed

`succeeded` means that the check could be done: its result says whether the files are valid. `failed` means that it
could not, such as for a deleted file. A check holds no slot; a worker that has the base's tokenizer does it. Times are
unix seconds.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

from pydantic import TypeAdapter

from service.domain.duration import Duration
from service.domain.json import JsonObject
from service.domain.memory import Memory

Status = Literal["queued", "running", "succeeded", "failed"]
FINAL: frozenset[Status] = frozenset({"succeeded", "failed"})
FileParam = Literal["training_file", "validation_file"]
PROBLEMS_KEPT = 1000  # of one file; all are counted

# Stored beside tokenised rows: a `RowMask` per line of JSON; where each begins, and the end, as little-endian int64.
MASKS, MASKS_INDEX = "masks.jsonl", "masks.index"
INDEX_BYTES = 8


@dataclass(frozen=True)
class Failure:
    """An error as a job would report it."""

    code: str
    message: str
    param: str | None


@dataclass(frozen=True)
class Finding:
    """What is wrong on one line (from 1), and what to do. `field` is a path; empty: the line as a whole."""

    line: int
    field: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class LengthBucket:
    """How many sequences have at least `at_least` tokens and fewer than `below`."""

    at_least: int
    below: int
    sequences: int


@dataclass(frozen=True)
class Counts:
    """Exact counts of a valid file. A row has several sequences where it is a pair, where the base's template shows an
    earlier turn differently once others follow, or where the tuning edits prompts (`loreft`). `examples` is what a step
    counts. `context_tokens` is how many a row may have: the base's context without the positions that the tuning takes.
    Nothing is ever truncated: a row that is too long is invalid.
    """

    rows: int
    sequences: int
    examples: int
    tokens: int
    trained_tokens: int
    longest_tokens: int
    context_tokens: int
    lengths: list[LengthBucket]
    truncated_rows: int = 0


@dataclass(frozen=True)
class Advice:
    """What is probably wrong though it is valid, with how often it is so and some lines (from 1) of `param`'s file."""

    code: str
    message: str
    param: str | None = None
    count: int | None = None
    lines: list[int] | None = None


@dataclass(frozen=True)
class Description:
    """What is known of a valid file, whoever checks it; stored beside its tokenised rows as DESCRIPTION."""

    counts: Counts
    warnings: list[Advice]  # about this file alone; their `param` is whose file it is in a check


DESCRIBED = TypeAdapter(Description)
DESCRIPTION, SKETCH = "description.json", "sketch.safetensors"  # the second: hashes that files are compared by


@dataclass(frozen=True)
class FileReport:
    """One file. `problems` has the first PROBLEMS_KEPT of `num_problems`; `error` is what a job would fail with."""

    valid: bool
    error: Failure | None
    num_problems: int
    problems: list[Finding]
    counts: Counts | None  # None for an invalid file


@dataclass(frozen=True)
class Plan:
    """What the job would do: every "auto" resolved."""

    hyperparameters: JsonObject
    learning_rate: float
    steps_per_epoch: int
    total_steps: int
    tokens: int  # of all passes
    trained_tokens: int


@dataclass(frozen=True)
class CheckResult:
    """Everything that was found."""

    valid: bool
    training_file: FileReport
    validation_file: FileReport | None
    plan: Plan | None  # None where a file is invalid
    warnings: list[Advice]
    prints_the_date: bool = False  # the base's chat template shows today's date: the result is of one day
    duration: Duration | None = None  # None where a file is invalid or too little was measured
    duration_unknown: str | None = None  # why, for a plan whose duration is unknown
    memory: Memory | None = None  # None where a file is invalid, and in checks of earlier versions
    memory_unknown: str | None = None  # why, for a plan whose memory is unknown


RESULT = TypeAdapter(CheckResult)


@dataclass(frozen=True)
class Check:
    """One row of the checks table. Who works on it is a row of `service.domain.work`.

    `conditions` hashes what of the installation decides the result: a job may only take it over where it is the same.
    """

    id: str
    project_id: str
    base: str
    training_file: str
    validation_file: str | None
    objective: str
    tuning: JsonObject
    hyperparameters: JsonObject  # as they were asked for, with "auto"
    status: Status
    created_at: int
    conditions: str
    safeguards: JsonObject | None = None
    alias: str | None = None
    parent_model: str | None = None
    finished_at: int | None = None
    error: JsonObject | None = None  # a `Failure`
    result: JsonObject | None = None  # a `CheckResult`
    training_data: str | None = None  # key of the tokenised training file
    validation_data: str | None = None


@dataclass(frozen=True)
class Piece:
    """A stretch of a sequence that is trained or not, as the base reads it: special tokens are visible."""

    text: str
    trained: bool
    weight: float
    tokens: int


@dataclass(frozen=True)
class SequenceMask:
    """One training sequence of a row."""

    tokens: int
    trained_tokens: int
    pieces: list[Piece]


@dataclass(frozen=True)
class RowMask:
    """The row on one line (from 1) of a file."""

    line: int
    sequences: list[SequenceMask]


ROW = TypeAdapter(RowMask)


def template_date(check: Check) -> date:
    """What the base's chat template is given as today's."""
    return datetime.fromtimestamp(check.created_at, UTC).date()
