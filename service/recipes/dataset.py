"""From one line of a training file to a row, or to what is wrong with it; and from all problems to the job's error.

Wording of errors: openai-api reference, 1.3.5 and 1.4. Uses no tokenizers: errors that only a base can find are added
by `workers.data.check`.
"""

import re
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from service.domain.errors import JobError
from service.domain.json import DoubledKey, JsonObject, check_keys, shortened
from service.recipes.fields import said
from service.recipes.foreign_rows import Fit, ForeignShape, foreign_shape, foreign_values
from service.recipes.format import FORMATS, Format, Row, has_all_keys, lacks_one_key, recognise
from service.recipes.json_lines import read_object
from service.recipes.objective import OBJECTIVES, ObjectiveSettings

PROBLEMS_SHOWN = 20
PROBLEMS_KEPT = 10_000
ROW_PROBLEMS_LIMIT = 100

ROLES = "system, developer, user, assistant, tool, function"
_FOREIGN_ROLES = {"human": "user", "person": "user", "customer": "user"} | dict.fromkeys(
    ("gpt", "model", "bot", "chatbot", "ai"), "assistant"
)
_EXTRA = "contains an extra"
_MESSAGE_INDEX = re.compile(r"(?:input\.)?messages\[(\d+)\]")


class WrongFormat(Exception):
    """A row of a format that the job's method does not learn from."""

    def __init__(self, format: type[Format]) -> None:
        super().__init__(format.name)
        self.format = format


class ForeignRow(Exception):
    """A row as another tool trains on it; `reason` names the tool, and how to write the row here."""

    def __init__(self, shape: ForeignShape, objective: type[ObjectiveSettings]) -> None:
        format = FORMATS.find(shape.format)
        assert format is not None, "the built-in formats are registered"
        readers = "" if format in objective.formats else f", which is for the method {_readers(format)}"
        self.reason = f"looks like {shape.name}{readers}; {shape.rewriting}"
        super().__init__(self.reason)


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

    Raises WrongFormat where the row is of a format that the job's objective does not read, ForeignRow where it is of
    none, but of a known one of other tools.
    """
    found = read_object(line, number)
    if isinstance(found, str):
        return [Problem(number, "", found)]
    text, data = found
    try:
        check_keys(text)
    except DoubledKey as doubled:
        return [Problem(number, doubled.path, _twice(doubled))]
    return _validate(data, number, objective)


def _twice(doubled: DoubledKey) -> str:
    return f'has the key "{doubled.key}" twice; remove one of them'


def _validate(
    data: JsonObject, number: int, objective: type[ObjectiveSettings]
) -> tuple[type[Format], Row] | list[Problem]:
    given = {key for key, value in data.items() if value is not None}  # a null is the same as a missing key
    keys = given if recognise(given) else data.keys()
    format = recognise(keys, objective.formats)
    if format is not None and format not in objective.formats and (meant := _one_key_short(keys, objective)):
        format = meant
    known = format in objective.formats and lacks_one_key(format, keys)
    if not known and (format is None or not has_all_keys(format, keys, and_no_more=True)):
        shape = foreign_shape(data, _fit(format, keys))
        if shape is not None:
            raise ForeignRow(shape, objective)
    if format is None:
        return [Problem(number, "", f"Unexpected file format, expected {_expected(objective)}.")]
    if format not in objective.formats:
        raise WrongFormat(format)
    try:
        return format, format.model_of(keys).model_validate(data)
    except ValidationError as invalid:
        if shape := foreign_values(data):
            raise ForeignRow(shape, objective) from None
        errors = invalid.errors(include_url=False, include_input=False)[:ROW_PROBLEMS_LIMIT]
        return [_problem(error, number) for error in errors]


def _one_key_short(keys: Set[str], objective: type[ObjectiveSettings]) -> type[Format] | None:
    """A format of the objective of which a row with these keys, which fits another, would be one with one key more."""
    return next((format for format in objective.formats if lacks_one_key(format, keys)), None)


def _fit(format: type[Format] | None, keys: Set[str]) -> Fit:
    if format is None:
        return "none"
    return "more" if has_all_keys(format, keys, and_no_more=False) else "some"


def _expected(objective: type[ObjectiveSettings]) -> str:
    rows = [format.rows for format in objective.formats]
    return rows[0] if len(rows) == 1 else f"either {' or '.join(rows)}"


def explained(invalid: ValidationError, *place: str | int) -> str:
    """The first of what is wrong with a part of a row at `place`, in the words of invalid lines: field and reason."""
    first = invalid.errors(include_url=False, include_input=False)[0]
    found = _problem({**first, "loc": (*place, *first["loc"])}, 0)
    return f"{found.field} {found.reason}"


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
    key = shortened(str(location[-1])) if location else ""
    match error["type"]:
        case "extra_forbidden" if key == "weight" and "messages" in location[:2]:
            return f'{_EXTRA} "weight": only assistant messages have one'
        case "extra_forbidden" if key in ("annotations", "refusal", "audio") and "messages" in location[:2]:
            return f'{_EXTRA} "{key}" that is not empty, which no chat template shows; remove it'
        case "extra_forbidden":
            return f'{_EXTRA} "{key}"'
        case "missing":
            return f'has no "{key}"'
        case "union_tag_not_found":
            return "Discriminator 'role' is missing in value"
        case "union_tag_invalid":
            tag = str(error["ctx"]["tag"])
            meant = f'write "{_FOREIGN_ROLES[tag.lower()]}": ' if tag.lower() in _FOREIGN_ROLES else ""
            return f'has the unknown role "{shortened(tag)}"; {meant}the roles are {ROLES}'
        case "too_short" if key == "messages":
            return "has no messages"
        case "too_long" if key == "messages":
            return f"has more than {error['ctx']['max_length']} messages"
        case "model_attributes_type" | "model_type" | "dict_type":
            return "is not an object"
        case "string_too_short":
            return "is empty"
        case "list_type" if key == "labels":
            return 'is no list of names; the labels of several annotators are written as "votes": {annotator: label}'
        case "bool_type":
            return "must be true or false"
    return "must be a number from 0 to 1" if key == "weight" else said(error)


def _path(location: list[str | int]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{shortened(step)}"
    return path.removeprefix(".")


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


def report_file(reason: str, param: str) -> JobError:
    """The job's error for a file that holds no JSON lines; `reason` is the end of a sentence "The file ..."."""
    message = f"The job failed due to an invalid {param.replace('_', ' ')}. Invalid file format. The file {reason}."
    return JobError(f"invalid_{param}", message, param)


def report_wrong_format(format: type[Format], objective: type[ObjectiveSettings], file_id: str, param: str) -> JobError:
    """The job's error for a file whose rows are meant for other methods; OpenAI's words."""
    readers = _readers(format)
    message = (
        f"The job failed due to an invalid {param.replace('_', ' ')}. Invalid file format. "
        f"Input file {file_id} is in the {format.public_name()} format, but the specified fine-tuning job is not using "
        f"{readers} as the training method (provided method={objective.name})."
    )
    return JobError(f"invalid_{param}", message, param)


def _readers(format: type[Format]) -> str:
    *others, last = [f"'{other.name}'" for other in OBJECTIVES if format in other.formats]
    return f"{', '.join(others)} or {last}" if others else last


def report_too_few(found: int, minimum: int, param: str) -> JobError:
    """The job's error for a file that is right, but holds too few examples."""
    noun = param.replace("_", " ").capitalize()
    message = f"{noun} has {found} example(s), but must have at least {minimum} example{'s' if minimum != 1 else ''}"
    return JobError("invalid_n_examples", message, param)


def details(problems: Sequence[Problem], total: int) -> JsonObject:
    """For an event's data: all `problems` (line, field, reason; at most 10,000 are kept) and their true `total`."""
    return {"problems": [asdict(problem) for problem in problems[:PROBLEMS_KEPT]], "total": total}
