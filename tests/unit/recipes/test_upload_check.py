"""The lines of a training file, checked while it is uploaded: however its bytes come, the same is found."""

import gzip
import json
import random
import tracemalloc
from collections.abc import Iterable

import pytest

from service.recipes.json_lines import SURE_CONTAINERS, is_plainly_an_object, read_object
from service.recipes.upload_check import BLANK_COUNTED, PROBLEMS_COUNTED, UploadCheck

LIMIT = 60
MEBIBYTE = 1024 * 1024
SECRET = b"zebra"
GOOD = '{"prompt": "größe 漢字 😀", "completion": "a\\nb"}'.encode()
HOSTILE = b"\xef\xbb\xbf" + b"\n".join(
    [
        GOOD + b"\r",
        GOOD,
        b'{"zebra": "zebra"',
        b"[1]",
        b'"zebra"',
        b'{"prompt": "zebra\xff"}',
        b'{"prompt": NaN, "zebra": 1}',
        b"x" * LIMIT + b"\r",  # as long as a line may be, without its CR
        b"y" * (LIMIT + 1),
        b"z" * (LIMIT + 100),
        b" \t\r",
        b"",
        b"\x0b",
        b"{'zebra': 1}",
        GOOD,
        b"",
        GOOD + b" \r",
        b'{"zebra": "a\rb"}',
        b'{"a": 1}\r{"zebra": 2}',
        b'{"zebra": 1},',
        b"[" * 300 + b"]" * 300,
        GOOD,
        b"\r",
        b"",
    ]
)
FOUND = (
    "Line 3: is not JSON: EOF while parsing an object at column 17; a row is one line: write a line break in a text as "
    "\\n; line 4: is not an object; line 5: is not an object; line 6: is not UTF-8 (byte 18); save the file as UTF-8; "
    "line 7: is not JSON: expected value at column 12; line 8: is not JSON: expected value at column 1; "
    "line 9: is longer than 60 bytes; shorten it; line 10: is longer than 60 bytes; shorten it; "
    "line 11: is blank, and so are all lines up to 13; remove blank lines; "
    "line 14: is not JSON: key must be a string at column 2; it looks like a Python object: write rows with "
    "json.dumps; line 16: is blank; remove blank lines; line 18: is not JSON: control character (\\u0000-\\u001F) "
    "found while parsing a string at column 13; line 19: holds several rows, separated by carriage returns (CR) alone; "
    "end each with a line feed (LF); line 20: is not JSON: trailing characters at column 13; remove the comma at the "
    "end of the line; line 21: is longer than 60 bytes; shorten it"
)
BEYOND = {  # what only one of two parsers accepts, and what neither does
    "as deep as the faster parser is trusted": b'{"a": '
    + b"[" * (SURE_CONTAINERS - 1)
    + b"]" * (SURE_CONTAINERS - 1)
    + b"}",
    "too deep": b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
    "much too deep": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "many objects, none deep": b'{"a": [' + b", ".join([b"{}"] * 300) + b"]}",
    "a long integer": b'{"a": ' + b"1" * 4301 + b"}",
    "a long integer in the middle": b'{"a": [' + b'"b", ' * 999 + b"1" * 4301 + b"]}",
    "an integer as long as it may be": b'{"a": ' + b"1" * 4300 + b"}",
    "a long text with digits": b'{"a": "' + b"1 " * 9000 + b'"}',
    "infinite": b'{"a": 1e999}',
    "Infinity": b'{"a": [-Infinity]}',
    "not UTF-8 in a text": b'{"a": {"b": ["\xc3("]}}',
    "not UTF-8 in a key": b'{"a": {"\xff": 1}}',
    "half a surrogate pair": b'{"a": ["\\ud83d"]}',
    "a surrogate as UTF-8": b'{"a": "\xed\xa0\x80"}',
    "a key twice": b'{"a": 1, "a": 2}',
    "a number": b"1",
    "nothing": b"",
}


def checked(chunks: Iterable[bytes], limit: int = LIMIT) -> str | None:
    check = UploadCheck(limit)
    for chunk in chunks:
        check.feed(chunk)
    return check.finish()


def test_every_kind_of_problem_is_said_with_its_line() -> None:
    assert checked([HOSTILE]) == FOUND


def test_where_chunks_end_changes_nothing() -> None:
    for at in range(len(HOSTILE) + 1):
        assert checked([HOSTILE[:at], HOSTILE[at:]]) == FOUND
    for size in range(1, 9):
        assert checked(HOSTILE[at : at + size] for at in range(0, len(HOSTILE), size)) == FOUND
    chosen = random.Random(3)
    for _ in range(100):
        ends = sorted(chosen.sample(range(len(HOSTILE)), 5))
        assert checked(HOSTILE[a:b] for a, b in zip([0, *ends], [*ends, len(HOSTILE)], strict=True)) == FOUND


def test_nothing_of_a_row_is_said() -> None:
    assert HOSTILE.count(SECRET) > 8
    assert SECRET.decode() not in FOUND
    for text in (SECRET, b'{"zebra": }', b'{"zebra": 1, "zebra": }', b"zebra,zebra\n1,2", b"\x1f\x8bzebra", b"[zebra"):
        assert SECRET.decode() not in (checked([text]) or "")


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n \n"])
def test_a_file_of_objects_has_no_problem(end: bytes) -> None:
    assert checked([GOOD + b"\n" + GOOD + end]) is None
    assert checked([b"\xef\xbb\xbf" + GOOD + end]) is None
    assert checked([end]) is None


def test_a_file_of_another_kind_is_said_to_be_one() -> None:
    compressed = gzip.compress(GOOD * 100)
    for size in (1, 3, len(compressed)):
        chunks = [compressed[at : at + size] for at in range(0, len(compressed), size)]
        assert checked(chunks) == "The file is compressed with gzip; decompress it first"
    table = b"prompt,completion\na,b\nc,d\n"
    assert checked([table]) == checked([table[:5], table[5:]])
    assert (checked([table]) or "").startswith("The file is a table with columns separated by commas (CSV); write each")


def test_only_the_first_problems_are_shown_and_the_others_counted() -> None:
    line = b'{"a": "' + b"b" * 40 + b"\x01\n"
    details = checked([line * 33]) or ""
    assert details.startswith("Line 1: ") and "; line 20: " in details
    assert details.endswith("; and 13 more lines") and len(details) < 4000
    assert (checked([line * 21]) or "").endswith("; and 1 more line")
    many = checked([line * (PROBLEMS_COUNTED // 2)] * 4) or ""
    assert many.endswith(f"; and at least {PROBLEMS_COUNTED - 20:,} more lines")


def test_a_file_of_line_feeds_is_left_to_the_job() -> None:
    few, many = b"\n" * 40_000, b"\n" * BLANK_COUNTED
    found = "Line 2: is blank, and so are all lines up to 80000; remove blank lines; line 80001: is not an object"
    assert checked([GOOD + few, few + b"[]"]) == found
    assert checked([GOOD + many[:9], many, b"[]\n" * 9]) is None
    assert checked([GOOD + b"\n[]\n" + many, b"[]\n" * 9]) == "Line 2: is not an object"


def test_a_line_over_the_limit_is_not_held() -> None:
    chunk = b"x" * MEBIBYTE
    check = UploadCheck(1000)
    tracemalloc.start()
    try:
        for _ in range(64):
            check.feed(chunk)
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTE // 2
    finally:
        tracemalloc.stop()
    check.feed(b"\n" + GOOD)
    assert check.finish() == "Line 1: is longer than 1000 bytes; shorten it"


@pytest.mark.parametrize("name", BEYOND)
def test_what_only_one_parser_accepts_is_decided_by_the_jobs(name: str) -> None:
    reason = read_object(BEYOND[name], 3)
    assert not (is_plainly_an_object(BEYOND[name]) and isinstance(reason, str))
    found = checked([GOOD + b"\n" + GOOD + b"\n" + BEYOND[name] + b"\n" + GOOD], MEBIBYTE)
    blank = "is blank; remove blank lines" if not BEYOND[name] else reason
    assert found == (f"Line 3: {blank}" if isinstance(blank, str) else None)


def test_the_faster_parser_accepts_nothing_that_the_jobs_refuses() -> None:
    chosen = random.Random(18)
    signs = [*b'{}[],:"\\/.+-eE01\t\r\x00\x0b\x7f', *"支😀é".encode(), 0xFF]
    signs_and_words = [bytes([sign]) for sign in signs] + [
        b"\\u",
        b"\\ud83d",
        b"NaN",
        b"Infinity",
        b"null",
        b"00",
        b"'",
    ]
    refused = 0
    for _ in range(4000):
        line = bytearray(json.dumps(_value(chosen), ensure_ascii=chosen.random() < 0.5).encode())
        for _ in range(chosen.randint(0, 2)):
            at = chosen.randint(0, len(line))
            line[at : at + chosen.randint(0, 2)] = chosen.choice(signs_and_words)
        right = not isinstance(read_object(bytes(line), 2), str)
        assert right or not is_plainly_an_object(bytes(line)), bytes(line)
        refused += not right
    assert 1000 < refused < 3000


def _value(chosen: random.Random) -> dict[str, object]:
    text = "".join(chosen.choices('ab"\\\n é支😀/', k=chosen.randint(0, 6)))
    inner: object = [1, -2.5, 10**20, 1e300, None, True, {"b": text}]
    return {"a": text, text: inner, "c": [{}, [], [[text]], {"d": {"e": chosen.random()}}]}
