"""A file that is read in parts is what one pass over it says: the same bytes, the same problems in the same order, the
same rows to whoever looks at them.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest

from tests.given.files_in_parts import (
    ANSWER,
    ASKED,
    BASE,
    OBJECTIVES,
    ROWS,
    Outcome,
    Seen,
    begun,
    good_rows,
    in_one_pass,
    order_for,
    outcome,
)
from workers.data import advice
from workers.data.base_text import BaseText
from workers.data.tokenized import TokenizedDataset
from workers.jobs.part_reader import Lines, Message, PartEnd, read_parts
from workers.model.load import load_text

PROCESSES = 3
BROKEN = [
    b"", b"", b"   \r", b"{", b"[]", b"\xff{}", b"\xef\xbb\xbf" + b'{"text": "a"}', b"null", b'{"a": 1, "a": 2}',
    b'{"text": "' + b"long " * 200 + b'"}', b'{"\\ud800": 1}', b'{"text": "\\ud800"}', b'{"text": "<|end|>"}',
    b'{"text": "cut', b"a,b,c", b'{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}',
    b'{"instruction": "a", "output": "b"}', b'{"messages": [{"role": "human", "content": "a"}]}',
    b'{"messages": [{"role": "user", "content": "say <|end|>"}, {"role": "assistant", "content": "b"}]}',
    b'{"messages": [{"role": "user", "content": "a", "weight": 1}, {"role": "assistant", "content": "b"}]}',
    json.dumps({"messages": [*ASKED, ANSWER | {"content": "far too long " * 30}]}).encode(),
    b'{"text": "a", "label": "new"}', b'{"text": "a", "labels": ["new"]}',
]  # fmt: skip


@pytest.fixture(scope="module")
def text() -> BaseText:
    return load_text(BASE)


def in_parts(path: Path, objective: str, text: BaseText, part_bytes: int, **of_tuning: Any) -> Outcome:
    """As processes read it, without the processes: what they find goes through bytes."""

    def run(seen: Seen) -> TokenizedDataset:
        check, enough = begun(path, objective, seen), Event()
        order = order_for(path, objective, part_bytes=part_bytes, processes=PROCESSES, **of_tuning)
        readers: list[Iterator[Lines | PartEnd]] = [
            read_parts(order.model_copy(update={"process": process}), text, enough) for process in range(PROCESSES)
        ]
        part, num_bytes = 0, 0
        while (message := next(readers[part % PROCESSES], None)) is not None:
            found = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Message)
            if isinstance(found, Lines):
                check.read(found.lines)
            elif isinstance(found, PartEnd):
                assert found.part == part
                part, num_bytes = part + 1, num_bytes + found.num_bytes
            if not check.signs:
                enough.set()
        assert num_bytes == path.stat().st_size
        return check.finish()

    return outcome(run, path.parent)


def written(rows: list[bytes], numbers: random.Random) -> bytes:
    ends = numbers.choice([[b"\n"], [b"\r\n"], [b"\n", b"\r\n"]])
    bom = numbers.choice([b"", b"", b"\xef\xbb\xbf"])
    return bom + b"".join(row + numbers.choice(ends) for row in rows) + numbers.choice([b"", b"\n\n", b"{", b" "])


@pytest.mark.parametrize("kind", ROWS)
def test_parts_make_the_same_dataset(kind: str, text: BaseText, tmp_path: Path) -> None:
    objective = OBJECTIVES.get(kind, kind)
    for seed in range(3):
        numbers, path = random.Random(f"{kind} {seed}"), tmp_path / "rows.jsonl"
        content = b"\n".join(good_rows(kind, 60, numbers)) + numbers.choice([b"", b"\n", b"\n\n \n"])
        path.write_bytes(numbers.choice([b"", b"\xef\xbb\xbf"]) + content)
        expected = in_one_pass(path, objective, text)
        assert isinstance(expected[0], bytes), expected
        assert in_parts(path, objective, text, numbers.choice([100, 1000, 3000])) == expected


@pytest.mark.parametrize("kind", ROWS)
def test_parts_have_the_same_problems_in_the_same_order(kind: str, text: BaseText, tmp_path: Path) -> None:
    objective = OBJECTIVES.get(kind, kind)
    for seed in range(8):
        numbers, path = random.Random(f"{kind} {seed}"), tmp_path / "rows.jsonl"
        rows = good_rows(kind, 30, numbers)
        others = good_rows(numbers.choice(list(ROWS)), 3, numbers)
        for row in [*numbers.sample(BROKEN, numbers.randint(0, 8)), *others[: numbers.randint(0, 3)]]:
            rows.insert(numbers.randint(0, len(rows)), row)
        path.write_bytes(written(rows, numbers))
        expected = in_one_pass(path, objective, text)
        assert in_parts(path, objective, text, numbers.choice([60, 700, 100_000])) == expected


def test_parts_leave_rows_the_context_that_the_tuning_leaves_them(text: BaseText, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(good_rows("supervised", 20, random.Random(1))))
    taken = BASE.context_tokens - 16
    found = in_parts(path, "supervised", text, 300, prefix_tokens=taken)
    assert f"at most 16 beside the {taken} of the tuning" in str(found[1])
    assert found == in_one_pass(path, "supervised", text, prefix_tokens=taken)


def test_parts_keep_turns_apart_where_the_tuning_needs_it(text: BaseText, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(good_rows("supervised", 20, random.Random(1))))
    apart, joined = (in_parts(path, "supervised", text, 300, turns_apart=turns_apart) for turns_apart in (True, False))
    assert apart == in_one_pass(path, "supervised", text, turns_apart=True) != joined


def test_the_first_rows_alone_are_compared_for_likeness_in_parts_too(
    text: BaseText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "NEAR_ROWS", 20)
    path, numbers = tmp_path / "rows.jsonl", random.Random(1)
    words = [f"w{number}" for number in range(999)]
    texts = [" ".join(numbers.choices(words, k=20)) for _ in range(15)]
    rows = [json.dumps({"text": one}).encode() for one in [*texts, *(f"{one} please" for one in texts)]]
    path.write_bytes(b"\n".join([*rows[:10], b"", b"{", *rows[10:]]))
    expected = in_one_pass(path, "text", text)
    assert [(one.code, one.count) for one in expected[-1]] == [("near_duplicates", 5)]  # type: ignore[attr-defined]
    assert in_parts(path, "text", text, 300) == expected


def test_a_first_row_of_another_format_is_the_only_problem(text: BaseText, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join([b"", *good_rows("dpo", 2, random.Random(0)), b"{"]))
    expected = in_one_pass(path, "supervised", text)
    assert "preference format" in str(expected[1])
    assert in_parts(path, "supervised", text, 50) == expected
