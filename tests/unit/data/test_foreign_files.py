"""Files that hold no JSON lines: one sentence says what the file looks like, and what to do."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from typing import Any

import pytest

from service.recipes.json_lines import split_lines
from service.recipes.objectives.supervised import SupervisedSettings
from service.recipes.upload_check import UploadCheck
from tests.given.templates import tokenizer_for
from workers.data.base_text import BaseText
from workers.data.check import DatasetInvalid, check_file

ROWS = [
    {"messages": [{"role": "user", "content": f"{number}, größer?"}, {"role": "assistant", "content": f"{number}."}]}
    for number in range(12)
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
OPTIONS: dict[str, Any] = {"context_tokens": 512, "row_limit_bytes": 10_000, "examples_minimum": 10}


def check(content: bytes, **options: Any) -> int:
    limit = (OPTIONS | options)["row_limit_bytes"]
    chunks = [content[at : at + 1000] for at in range(0, len(content), 1000)]
    rest: dict[str, Any] = {"param": "training_file", "file_id": "file-1", "objective": SupervisedSettings}
    text = BaseText(tokenizer_for("bundled"))
    return len(check_file(split_lines(chunks, limit), text, **OPTIONS | rest | options))


def refused(content: bytes, **options: Any) -> DatasetInvalid:
    with pytest.raises(DatasetInvalid) as caught:
        check(content, **options)
    return caught.value


def said_at_upload(content: bytes, row_limit_bytes: int = 10_000) -> str | None:
    upload = UploadCheck(row_limit_bytes)
    for at in range(0, len(content), 1000):
        upload.feed(content[at : at + 1000])
    return upload.finish()


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("train.jsonl", LINES)
    return target.getvalue()


def tarred() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        entry = tarfile.TarInfo("train.jsonl")
        entry.size = len(LINES.encode())
        archive.addfile(entry, io.BytesIO(LINES.encode()))
    return target.getvalue()


FOREIGN = {
    "gzip": (gzip.compress(LINES.encode()), "is compressed with gzip; decompress it first"),
    "bzip2": (bz2.compress(LINES.encode()), "is compressed with bzip2; decompress it first"),
    "xz": (lzma.compress(LINES.encode()), "is compressed with xz; decompress it first"),
    "zip": (zipped(), "is a ZIP archive or an Excel workbook; unpack it, or save its rows as JSON lines"),
    "tar": (tarred(), "is a tar archive; unpack it first"),
    "parquet": (b"PAR1\x15\x04\x15", "is a Parquet file; save its rows as JSON lines"),
    "utf-16": (LINES.encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    "utf-16 without a mark": (LINES.encode("utf-16-le"), "is UTF-16 text; save it as UTF-8"),
    "utf-16 of the other order": (LINES.encode("utf-16-be"), "is UTF-16 text; save it as UTF-8"),
    "utf-32": (LINES.encode("utf-32"), "is UTF-32 text; save it as UTF-8"),
    "cr": (LINES.replace("\n", "\r").encode(), "ends its lines with a carriage return (CR) alone; "
           "end each line with a line feed (LF)"),
    "csv": (b"prompt,completion\na,b\n", "is a table with columns separated by commas (CSV); "
            "write each row as a JSON object"),
    "quoted csv": (b'\xef\xbb\xbf"prompt";"completion"\r\n"a";"b"\r\n', "is a table with columns separated by "
                   "semicolons (CSV); write each row as a JSON object"),
    "tsv": (b"question\tanswer\na\tb\n", "is a table with columns separated by tabs (CSV); "
            "write each row as a JSON object"),
    "array": (json.dumps(ROWS).encode(), "is a JSON array; write each object on one line of its own, "
              "without brackets and commas around them"),
    "indented array": (json.dumps(ROWS, indent=2).encode(), "is a JSON array; write each object on one line of its "
                       "own, without brackets and commas around them"),
    "array of lines": (("[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]").encode(), "is a JSON array; write each "
                       "object on one line of its own, without brackets and commas around them"),
    "indented objects": ("\n".join(json.dumps(row, indent=1) for row in ROWS).encode(), "holds JSON objects spread "
                         "over several lines; write each object on one line"),
    "one indented object": (json.dumps(ROWS[0], indent="\t").encode(), "holds JSON objects spread over several lines; "
                            "write each object on one line"),
    "xml": (b'<?xml version="1.0"?>\n<rows/>', "is XML or HTML; write its text as JSON lines"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_one_sentence_says_what_the_file_is(kind: str) -> None:
    content, sentence = FOREIGN[kind]
    invalid = refused(content)
    assert invalid.error.code == "invalid_training_file"
    assert invalid.error.message == (
        f"The job failed due to an invalid training file. Invalid file format. The file {sentence}."
    )
    assert invalid.details == {"problems": [{"line": 1, "field": "", "reason": f"the file {sentence}"}], "total": 1}
    assert said_at_upload(content) == f"The file {sentence}"


@pytest.mark.parametrize("kind", ["cr", "array", "gzip", "utf-16"])
def test_a_first_line_over_the_limit_of_a_row_is_recognised(kind: str) -> None:
    content, sentence = FOREIGN[kind]
    assert sentence in refused(content, row_limit_bytes=300).error.message
    assert said_at_upload(content, 300) == f"The file {sentence}"


def test_the_same_rows_as_json_lines_train() -> None:
    assert check(LINES.encode()) == check(LINES.replace("\n", "\r\n").encode()) == len(ROWS)
    assert check(b"\xef\xbb\xbf" + LINES.encode()) == len(ROWS)
    assert said_at_upload(b"\xef\xbb\xbf" + LINES.encode()) is None


def test_two_files_joined_are_told_by_the_mark_between_them() -> None:
    half = b"\xef\xbb\xbf" + LINES.encode()
    (problem,) = refused(half + half).details["problems"]
    assert problem["line"] == len(ROWS) + 1
    assert problem["reason"].startswith("begins with a byte-order mark (BOM), as where two files were joined")
    (problem,) = refused(half.rstrip() + half).details["problems"]
    assert (problem["line"], "between two rows" in problem["reason"]) == (len(ROWS), True)


def test_rows_of_another_tool_are_one_problem_that_counts_them() -> None:
    alpaca = json.dumps({"instruction": "a", "input": "", "output": "b"}) + "\n"
    invalid = refused((LINES + alpaca * 3 + "{\n").encode())
    assert [problem["line"] for problem in invalid.details["problems"]] == [13, 16]
    assert invalid.details["problems"][0]["reason"].startswith("looks like an Alpaca row; write it as ")
    assert invalid.details["problems"][0]["reason"].endswith("; 2 later rows are of the same kind")
    assert refused(alpaca.encode() * 12).details["total"] == 1


def test_a_row_that_ends_early_is_no_file_of_another_kind() -> None:
    invalid = refused((LINES[:20] + "\n" + LINES).encode())
    assert [problem["line"] for problem in invalid.details["problems"]] == [1]
    assert "is not JSON: EOF" in invalid.details["problems"][0]["reason"]
