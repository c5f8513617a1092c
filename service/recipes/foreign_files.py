"""Says in one sentence what a file is that holds no JSON lines, and what is wrong with a line that is no JSON.

Decides by the first bytes, as `file` does, and by what JSON writers are known to produce. Does not depend on formats of
rows: those of other tools are in `service.recipes.foreign_rows`.
"""

import codecs
import re
from collections.abc import Sequence

from pydantic_core import from_json

BOM = codecs.BOM_UTF8

# The beginning of a file -> what it is, and what to do. From the formats' own specifications.
_SIGNATURES = {
    b"\x1f\x8b": "is compressed with gzip; decompress it first",
    b"BZh": "is compressed with bzip2; decompress it first",
    b"\xfd7zXZ": "is compressed with xz; decompress it first",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; decompress it first",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive; unpack it first",
    b"PK": "is a ZIP archive or an Excel workbook; unpack it, or save its rows as JSON lines",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook; save its rows as JSON lines",
    b"PAR1": "is a Parquet file; save its rows as JSON lines",
    b"ARROW1": "is an Arrow file; save its rows as JSON lines",
    b"Obj\x01": "is an Avro file; save its rows as JSON lines",
    b"SQLite format 3": "is an SQLite database; save its rows as JSON lines",
    b"%PDF": "is a PDF document; write its text as JSON lines",
    b"\x89HDF": "is an HDF5 file; save its rows as JSON lines",
    codecs.BOM_UTF32_LE: "is UTF-32 text; save it as UTF-8",
    codecs.BOM_UTF32_BE: "is UTF-32 text; save it as UTF-8",
    codecs.BOM_UTF16_LE: "is UTF-16 text; save it as UTF-8",
    codecs.BOM_UTF16_BE: "is UTF-16 text; save it as UTF-8",
}
_TAR_AT = 257
_HEADER = re.compile(
    r'"?[A-Za-z_][\w .-]*"?(?:(?P<sign>[,;\t|])"?[A-Za-z_][\w .-]*"?)(?:(?P=sign)"?[A-Za-z_][\w .-]*"?)*'
)
_SIGNS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_ONE_LINE = "write each object on one line of its own, without brackets and commas around them"


def foreign_file(head: Sequence[bytes]) -> str | None:
    """What the file is instead of JSON lines, as the end of a sentence "The file ..."; None if it may be JSON lines.

    `head` are its first two lines, or the only one, possibly cut.
    """
    if not head:
        return None
    first = head[0]
    for signature, sentence in _SIGNATURES.items():
        if first.startswith(signature):
            return sentence
    if first[_TAR_AT : _TAR_AT + 5] == b"ustar":
        return "is a tar archive; unpack it first"
    if b"\0" in first[:64]:
        text = first[1:64:2].count(0) > 16 or first[:64:2].count(0) > 16 or len(first) < 8
        return "is UTF-16 text; save it as UTF-8" if text else "is binary data; save its rows as JSON lines"
    first = first.removeprefix(BOM).strip()
    if _parts_of(first, b"\r"):
        return "ends its lines with a carriage return (CR) alone; end each line with a line feed (LF)"
    return _other_text(first, [line.strip() for line in head[1:]])


def _other_text(first: bytes, rest: Sequence[bytes]) -> str | None:
    """What a text file of one encoding is instead of JSON lines."""
    if first.startswith(b"["):
        return f"is a JSON array; {_ONE_LINE}" if _is_array(first, rest) else None
    if first.startswith(b"{"):
        spread = rest and not _is_json(first) and _begins_json(first + b"\n" + rest[0])
        return "holds JSON objects spread over several lines; write each object on one line" if spread else None
    if first.lower().startswith((b"<?xml", b"<!doctype", b"<html")):
        return "is XML or HTML; write its text as JSON lines"
    header = _HEADER.fullmatch(first.decode("utf-8", "replace"))
    if header is None:
        return None
    return f"is a table with columns separated by {_SIGNS[header['sign']]} (CSV); write each row as a JSON object"


def _is_array(first: bytes, rest: Sequence[bytes]) -> bool:
    """Whether the file is one array; if each line is an array of its own, the lines are wrong, not the file."""
    if not _is_json(first):
        return first == b"[" or _begins_json(first)
    return first.startswith((b"[{", b"[ {")) and not any(rest)


def why_no_json(line: bytes, error: str) -> str:
    """What is wrong with a line that the parser refuses, with its own words `error`, and what to do."""
    text = line.strip()
    if text.startswith(BOM):
        return "begins with a byte-order mark (BOM), as where two files were joined; remove the mark"
    if b"\0" in text:
        return "is not JSON: it holds NUL bytes; save the file as UTF-8 text"
    if _parts_of(text, b"\r"):
        return "holds several rows, separated by carriage returns (CR) alone; end each with a line feed (LF)"
    if _parts_of(text, BOM):
        return "holds a byte-order mark (BOM) between two rows, as where files were joined; write a line feed instead"
    reason = f"is not JSON: {error}"
    if text.startswith((b"{'", b"[{'")):
        return f"{reason}; it looks like a Python object: write rows with json.dumps"
    if text.endswith(b",") and _is_json(text[:-1]):
        return f"{reason}; remove the comma at the end of the line"
    if "trailing characters" in error:
        return f"{reason}; write one object on each line"
    if "EOF" in error:
        return f"{reason}; a row is one line: write a line break in a text as \\n"
    return reason


def _parts_of(text: bytes, sign: bytes) -> bool:
    """Whether `text` is several JSON values with `sign` between them; the last may be cut."""
    first, found, rest = text.partition(sign)
    return bool(found and rest.strip()) and _is_json(first) and first.lstrip().startswith((b"{", b"["))


def _is_json(text: bytes) -> bool:
    try:
        from_json(text)
    except ValueError:
        return False
    return True


def _begins_json(text: bytes) -> bool:
    """Whether something can follow that makes `text` valid JSON, or it is valid already."""
    try:
        from_json(text.decode("utf-8", "ignore"), allow_partial=True)  # a cut line may end within a character
    except ValueError:
        return False
    return True
