"""From one line of a training file to a row, or to what is wrong with it; and from all problems to the job's error.

Wording of errors: openai-api reference, 1.3.5 and 1.4. Uses no tokenizers: errors that only a base can find are added
by `workers.data.check`.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from service.domain.errors import JobError
from service.domain.json import JsonObject
from service.recipes.format import Format, Row, recognise
from service.recipes.objective import OBJECTIVES, ObjectiveSettings

PROBLEMS_SHOWN = 20
PROBLEMS_KEPT = 10_000
ROW_PROBLEMS_LIMIT = 100

BOM = b"\xef\xbb\xbf"
ROLES = "system, developer, user, assistant, tool, function"
_EXTRA = "contains an extra"
_MESSAGE_INDEX = re.compile(r"(?:input\.)?messages\[(\d+)\]")


class WrongFormat(Exception):
    """A row of a format that the job's method does not learn from."""

    def __init__(self, format: type[Format]) -> None:
        super().__init__(format.name)
        self.format = format


@dataclass(frozen=True)
class Problem:
    """What is wrong on one line (1-based). `field` is a path such as `messages[1].role`; empty: the line as a whole."""

    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        message = _MESSAGE_INDEX.match(self.field)
        place = f"Example {self.line}" + (f", message {int(message[1]) + 1}" if message else "")
        return f"{place}: {self.reason}" + (f" ({self.field})" if self.field else "")


def parse_row(line: bytes, number: int, objective: type[ObjectiveSettings]) -> tuple[type[Format], Row] | list[Problem]:
    """The row on line `number` (1-based) and its format, or what is wrong with it. A BOM before the first line is fine.

    Raises WrongFormat where the row is of a format that the job's objective does not read.
    """
    if number == 1:
        line = line.removeprefix(BOM)
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return [Problem(number, "", f"is not UTF-8 (byte {error.start + 1})")]
    try:
        data = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        return [Problem(number, "", f"is not JSON: {_column_only(str(error))}")]
    if not isinstance(data, dict):
        return [Problem(number, "", "is not an object")]
    return _validate(data, number, objective)


def _column_only(message: str) -> str:
    """The parser counts lines from 1 within what it was given, which is always one line."""
    return message.replace(" at line 1 column", " at column")


def _validate(
    data: JsonObject, number: int, objective: type[ObjectiveSettings]
) -> tuple[type[Format], Row] | list[Problem]:
    format = recognise(data.keys())
    if format is None:
        return [Problem(number, "", f"Unexpected file format, expected {_expected(objective)}.")]
    if format not in objective.formats:
        raise WrongFormat(format)
    try:
        return format, format.model_of(data.keys()).model_validate(data)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_input=False)[:ROW_PROBLEMS_LIMIT]
        return [_problem(error, number) for error in errors]


def _expected(objective: type[ObjectiveSettings]) -> str:
    rows = [format.rows for format in objective.formats]
    return rows[0] if len(rows) == 1 else f"either {' or '.join(rows)}"


def _problem(error: ErrorDetails, number: int) -> Problem:
    location = list(error["loc"])
    index = location.index("messages") + 1 if "messages" in location[:2] else len(location)
    if len(location) > index + 1:
        del location[index + 1]  # the role by which pydantic chose the message's shape
    match error["type"]:
        case "union_tag_invalid" | "union_tag_not_found":
            location.append("role")
        case "empty" if isinstance(location[-1], int):  # the message as a whole
            location.append("content")
        case "untrained":
            location.append("messages")
    return Problem(number, _path(location), _reason(error, location))


def _reason(error: ErrorDetails, location: list[str | int]) -> str:
    key = _shortened(location[-1]) if location else ""
    match error["type"]:
        case "extra_forbidden" if key == "weight" and "messages" in location[:2]:
            return f'{_EXTRA} "weight": only assistant messages have one'
        case "extra_forbidden":
            return f'{_EXTRA} "{key}"'
        case "missing":
            return f'has no "{key}"'
        case "union_tag_not_found":
            return "Discriminator 'role' is missing in value"
        case "union_tag_invalid":
            return f'has the unknown role "{_shortened(error["ctx"]["tag"])}"; the roles are {ROLES}'
        case "too_short" if key == "messages":
            return "has no messages"
        case "too_long" if key == "messages":
            return f"has more than {error['ctx']['max_length']} messages"
        case "model_attributes_type" | "model_type" | "dict_type":
            return "is not an object"
        case "string_too_short":
            return "is empty"
    return "must be 0 or 1" if key == "weight" else error["msg"]


def _path(location: list[str | int]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{_shortened(step)}"
    return path.removeprefix(".")


def _shortened(text: str | int) -> str:
    """Keys and roles are the user's and may be as long as the line."""
    return str(text) if len(str(text)) <= 64 else f"{str(text)[:64]}..."


def report(problems: Sequence[Problem], total: int, param: str) -> JobError:
    """The job's error for `total` problems, which begin with `problems`; `param` is the job's field of the file."""
    assert problems, "a file without problems has no error"
    noun = param.replace("_", " ")
    lead, code = f"The job failed due to an invalid {noun}.", f"invalid_{param}"
    if problems[0].reason.startswith(_EXTRA):
        lead, code = f"The job failed due to a file format error in the {noun}.", "invalid_file_format"
    shown = "; ".join(str(problem) for problem in problems[:PROBLEMS_SHOWN])
    hidden = total - min(len(problems), PROBLEMS_SHOWN)
    more = f"; and {hidden} more" if hidden else ""
    return JobError(code, f"{lead} Invalid file format. {shown}{more}", param)


def report_wrong_format(format: type[Format], objective: type[ObjectiveSettings], file_id: str, param: str) -> JobError:
    """The job's error for a file whose rows are meant for other methods; OpenAI's words."""
    readers = " or ".join(f"'{other.name}'" for other in OBJECTIVES if format in other.formats)
    message = (
        f"The job failed due to an invalid {param.replace('_', ' ')}. Invalid file format. "
        f"Input file {file_id} is in the {format.public_name()} format, but the specified fine-tuning job is not using "
        f"{readers} as the training method (provided method={objective.name})."
    )
    return JobError(f"invalid_{param}", message, param)


def report_too_few(found: int, minimum: int, param: str) -> JobError:
    """The job's error for a file that is right, but holds too few examples."""
    noun = param.replace("_", " ").capitalize()
    message = f"{noun} has {found} example(s), but must have at least {minimum} example{'s' if minimum != 1 else ''}"
    return JobError("invalid_n_examples", message, param)


def details(problems: Sequence[Problem], total: int) -> JsonObject:
    """For an event's data: all `problems` (line, field, reason; at most 10,000 are kept) and their true `total`."""
    return {"problems": [asdict(problem) for problem in problems[:PROBLEMS_KEPT]], "total": total}
