"""The lines of a training file: where they end, and whether each is one JSON object.

All that is said of a line before anybody asks which row it is. The one source of the words, for the check of an upload
(`service.recipes.upload_check`) and for a job's (`service.recipes.dataset`, `workers.data.check`). What a file is that
holds no JSON lines at all is said by `service.recipes.foreign_files`.
"""

from collections.abc import Iterable, Iterator

import msgspec
from pydantic_core import from_json

from service.domain.json import JsonObject
from service.recipes.foreign_files import BOM, why_no_json

# The parser's limits, beyond which `is_plainly_an_object` is not sure: containers in one another, digits of an integer.
SURE_CONTAINERS = 190
SURE_DIGITS = 4300
_DIGITS = frozenset(b"0123456789")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])  # checks all of the syntax, and builds nothing of the values


def split_lines(chunks: Iterable[bytes], row_limit_bytes: int) -> Iterator[bytes]:
    """The lines of a stream without LF or CRLF; a line over the limit is cut after `row_limit_bytes` + 1 bytes.

    The one extra byte shows that the limit is exceeded; memory stays bounded by the limit plus one chunk.
    """
    line, kept_bytes = bytearray(), row_limit_bytes + 2
    for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line += end[: kept_bytes - len(line)]
            yield without_cr(line, row_limit_bytes)
            line.clear()
        line += rest[: kept_bytes - len(line)]
    if line:
        yield without_cr(line, row_limit_bytes)


def without_cr(line: bytes | bytearray, row_limit_bytes: int) -> bytes:
    """A line that ended at a LF, of which at least the first `row_limit_bytes` + 2 bytes are given."""
    return bytes(line.removesuffix(b"\r")[: row_limit_bytes + 1])


def is_blank(line: bytes, number: int) -> bool:
    """Whether line `number` (1-based) holds nothing; a byte-order mark at the beginning of a file is nothing."""
    return not line.removeprefix(BOM if number == 1 else b"").strip()


def blank_lines(first: int, last: int) -> str:
    """What is wrong with a run of blank lines between rows."""
    return f"is blank{f', and so are all lines up to {last}' if last > first else ''}; remove blank lines"


def longer_than(row_limit_bytes: int) -> str:
    """What is wrong with a line over the limit."""
    return f"is longer than {row_limit_bytes} bytes; shorten it"


def read_object(line: bytes, number: int) -> tuple[str, JsonObject] | str:
    """The text and the object of line `number`, or what is wrong with it, in words that quote nothing of the line.

    A byte-order mark before the first line is fine. Of two equal keys the last counts; `check_keys` refuses them.
    """
    if number == 1:
        line = line.removeprefix(BOM)
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"is not UTF-8 (byte {error.start + 1}); save the file as UTF-8"
    try:
        data = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        return why_no_json(line, _column_only(str(error)))
    return (text, data) if isinstance(data, dict) else _why_no_object(data)


def is_plainly_an_object(line: bytes) -> bool:
    """Whether `read_object` would find an object on this line, which is not a file's first. Fast; builds no values.

    False does not say that it would not: what the faster parser refuses, and the little that only it accepts (more
    containers in one another, longer integers), is for `read_object` to decide.
    """
    try:
        _MEMBERS.decode(line)
        line.decode("utf-8")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    # In CPython before 3.13, `count` takes twice as long as copying without what is counted.
    if 2 * len(line) - len(line.replace(b"[", b"")) - len(line.replace(b"{", b"")) > SURE_CONTAINERS:
        return False
    return len(line) < SURE_DIGITS or _DIGITS.isdisjoint(line[::SURE_DIGITS])


def _column_only(message: str) -> str:
    """The parser counts lines from 1 within what it was given, which is always one line."""
    return message.replace(" at line 1 column", " at column")


def _why_no_object(data: object) -> str:
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return 'is an array; write a conversation as {"messages": [...]}, and each row on a line of its own'
    return "is not an object"
