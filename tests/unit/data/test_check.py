"""Whole files: streamed into lines, checked to their end, tokenised once."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.recipes.dataset import parse_row
from service.recipes.formats.chat import ChatRow
from service.recipes.json_lines import split_lines
from service.recipes.objectives.supervised import SupervisedSettings
from tests.given.templates import tokenizer_for
from workers.data.base_text import BaseText
from workers.data.check import DatasetInvalid, check_file
from workers.data.render import Renderer
from workers.data.template import ChatTemplate
from workers.data.tokenized import TokenizedDataset
from workers.data.whole_rendering import WholeRendering

LIMIT = 10_000


def row(number: int) -> bytes:
    messages = [{"role": "user", "content": f"Order {number}?"}, {"role": "assistant", "content": f"Number {number}."}]
    return json.dumps({"messages": messages}).encode()


def check(lines: Iterable[bytes], **options: Any) -> TokenizedDataset:
    defaults: dict[str, Any] = {
        "context_tokens": 512,
        "row_limit_bytes": LIMIT,
        "examples_minimum": 1,
        "param": "training_file",
    }
    defaults |= {"file_id": "file-1", "objective": SupervisedSettings}
    return check_file(lines, BaseText(tokenizer_for("bundled")), **defaults | options)


def refused(lines: Iterable[bytes], **options: Any) -> DatasetInvalid:
    with pytest.raises(DatasetInvalid) as caught:
        check(lines, **options)
    return caught.value


def places(invalid: DatasetInvalid) -> list[tuple[int, str]]:
    return [(problem["line"], problem["reason"]) for problem in invalid.details["problems"]]


def test_guard_a_row_costs_few_renderings_and_a_share_of_a_tokenizer_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, since both are what a check takes its time for; what a template is found to know costs some once."""
    counted: Counter[str] = Counter()

    def counting(kind: type[object], name: str) -> None:
        original = vars(kind)[name]

        def call(*arguments: Any, **named: Any) -> Any:
            counted[name] += 1
            return original(*arguments, **named)

        monkeypatch.setattr(kind, name, call)

    once = (WholeRendering, "render")
    for kind, name in ((ChatTemplate, "_apply"), once, (BaseText, "ids"), (BaseText, "batch_ids")):
        counting(kind, name)
    costs = []
    for num_rows in (100, 1100):
        counted.clear()
        check(row(number) for number in range(num_rows))
        costs.append((counted["_apply"] + counted["render"], counted["ids"] + counted["batch_ids"]))
    (few_renderings, few_calls), (renderings, calls) = costs
    assert renderings - few_renderings <= 1000
    assert calls - few_calls <= 1000 / 50


def test_a_good_file_becomes_its_rows_in_order() -> None:
    dataset = check(row(number) for number in range(10))
    tokenizer = tokenizer_for("bundled")
    assert len(dataset) == 10
    for number in range(10):
        tokens, trained = dataset.row(number)
        parsed = parse_row(row(number), 1, SupervisedSettings)
        assert isinstance(parsed, tuple) and isinstance(parsed[1], ChatRow)
        (expected,) = Renderer(BaseText(tokenizer)).render(parsed[1])
        assert (tokens.tolist(), trained.tobytes()) == (expected.ids, bytes(expected.trained))
        assert tokenizer.decode(tokens[trained == 1].tolist()) == f"Number {number}.<|end|>"


def test_a_dataset_is_the_same_after_save_and_load(tmp_path: Path) -> None:
    dataset = check(row(number) for number in range(3))
    dataset.save(tmp_path / "train.safetensors")
    loaded = TokenizedDataset.load(tmp_path / "train.safetensors")
    assert (loaded.tokens.dtype, loaded.trained.dtype, loaded.offsets.dtype) == (np.int32, np.uint8, np.int64)
    assert np.array_equal(loaded.tokens, dataset.tokens)
    assert np.array_equal(loaded.trained, dataset.trained)
    assert np.array_equal(loaded.offsets, dataset.offsets)
    assert loaded.num_tokens == loaded.offsets[-1] > loaded.num_trained_tokens == dataset.trained.sum()


def test_offsets_that_do_not_fit_are_refused() -> None:
    tokens, trained = np.zeros(3, np.int32), np.zeros(3, np.uint8)
    for offsets in ([0, 2], [1, 3], [0, 3, 3], [0, 4]):
        with pytest.raises(ValueError, match="offsets"):
            TokenizedDataset(tokens, trained, np.array(offsets, np.int64))


def test_all_problems_of_the_whole_file_are_found() -> None:
    user = {"role": "user", "content": "a"}
    invalid = refused(
        [
            row(1),
            b"{",
            b"",
            b" \r",
            json.dumps({"messages": [user, user | {"role": "assistant", "weight": 5}]}).encode(),
            row(6),
            json.dumps({"messages": [user, {"role": "assistant", "content": "say <|end|>"}]}).encode(),
        ]
    )
    assert [line for line, _ in places(invalid)] == [2, 3, 5, 7]
    assert places(invalid)[1] == (3, "is blank, and so are all lines up to 4; remove blank lines")
    assert invalid.details["total"] == 4
    assert invalid.error.code == "invalid_training_file"
    assert "Example 5, message 2: must be a number from 0 to 1 (messages[1].weight)" in invalid.error.message
    assert "Example 7, message 2: contains '<|end|>', a special token" in invalid.error.message


def test_a_blank_line_between_rows_is_a_problem() -> None:
    assert places(refused([row(1), b"", row(3)])) == [(2, "is blank; remove blank lines")]


def test_blank_lines_at_the_end_are_nothing() -> None:
    assert len(check([row(1), b"", b"\r", b"  "])) == 1


def test_a_bom_and_crlf_are_fine() -> None:
    content = b"\xef\xbb\xbf" + b"".join(row(number) + b"\r\n" for number in range(10))
    assert len(check(split_lines([content], LIMIT), examples_minimum=10)) == 10


def test_a_row_too_long_for_the_base_is_told_with_both_numbers() -> None:
    num_tokens = check([row(1)]).num_tokens
    assert len(check([row(1)], context_tokens=num_tokens)) == 1
    invalid = refused([row(1)], context_tokens=num_tokens - 1)
    reason = f"is too long for the base ({num_tokens} tokens, at most {num_tokens - 1}); shorten it"
    assert places(invalid) == [(1, reason)]


def test_a_conversation_too_long_for_the_base_is_told_with_its_whole_length() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 20
    invalid = refused([json.dumps({"messages": turns}).encode()], context_tokens=10)
    assert places(invalid) == [(1, "is too long for the base (121 tokens, at most 10); shorten it")]


def test_a_completion_too_long_for_the_base_is_told_as_well() -> None:
    legacy = b'{"prompt": "q", "completion": "wx"}'
    assert check([legacy], context_tokens=4).num_tokens == 4
    invalid = refused([legacy], context_tokens=3)
    assert places(invalid) == [(1, "is too long for the base (4 tokens, at most 3); shorten it")]


def test_a_line_over_the_limit_is_told_and_the_rest_is_still_read() -> None:
    invalid = refused([row(1) + b" " * LIMIT, b"{", row(3)])
    assert [line for line, _ in places(invalid)] == [1, 2]
    assert places(invalid)[0][1] == f"is longer than {LIMIT} bytes; shorten it"
    assert len(check([row(1) + b" " * (LIMIT - len(row(1)))])) == 1


def test_a_mix_of_formats_is_told_once_at_the_first_line_that_differs() -> None:
    legacy = b'{"prompt": "a", "completion": "b"}'
    invalid = refused([row(1), row(2), legacy, legacy, row(5)])
    difference = "has a different format from the file's first row"
    assert places(invalid) == [(3, f"{difference}: prompt/completion pairs after chat messages")]
    assert places(refused([legacy, row(2)])) == [(2, f"{difference}: chat messages after prompt/completion pairs")]


def test_a_file_of_prompts_and_completions_is_checked_as_well() -> None:
    dataset = check([b'{"prompt": "a", "completion": "b"}'] * 10, examples_minimum=10)
    assert (len(dataset), dataset.num_trained_tokens) == (10, 20)


def test_too_few_examples_are_an_error_of_their_own() -> None:
    invalid = refused((row(number) for number in range(7)), examples_minimum=10)
    assert invalid.error.code == "invalid_n_examples"
    assert invalid.error.message == "Training file has 7 example(s), but must have at least 10 examples"
    assert invalid.details == {"problems": [], "total": 0}


def test_an_empty_file_has_no_examples() -> None:
    for chunks in ([], [b""], [b"\n\n"], [b"\xef\xbb\xbf"]):
        invalid = refused(split_lines(chunks, LIMIT), param="validation_file")
        assert invalid.error.message == "Validation file has 0 example(s), but must have at least 1 example"
        assert (invalid.error.code, invalid.error.param) == ("invalid_n_examples", "validation_file")


def test_ten_thousand_problems_are_kept_and_all_are_counted() -> None:
    invalid = refused([b"{"] * 10_050)
    assert (len(invalid.details["problems"]), invalid.details["total"]) == (10_000, 10_050)
    assert "and 10030 more" in invalid.error.message


def test_examples_are_counted_by_the_file_even_where_a_row_becomes_two_sequences() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2
    lines = [json.dumps({"messages": turns}).encode()] * 9
    options: dict[str, Any] = {
        "context_tokens": 512,
        "row_limit_bytes": LIMIT,
        "param": "training_file",
        "file_id": "f",
        "objective": SupervisedSettings,
    }
    thinking = tokenizer_for("thinking")
    assert len(check_file(lines, BaseText(thinking), examples_minimum=9, **options)) == 18
    with pytest.raises(DatasetInvalid, match=r"has 9 example\(s\)"):
        check_file(lines, BaseText(thinking), examples_minimum=10, **options)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_do_not_depend_on_how_the_stream_is_cut(size: int) -> None:
    content = (
        b"one\r\n\ntwo\rx\n"
        + b"y" * 20
        + b"\r\n"
        + b"z" * 21
        + b"\n"
        + b"w" * 20
        + b"\rmore\n"
        + b"long" * 50
        + b"\nlast"
    )
    chunks = [content[at : at + size] for at in range(0, len(content), size)]
    lines = list(split_lines(chunks, 20))
    assert lines == [b"one", b"", b"two\rx", b"y" * 20, b"z" * 21, b"w" * 20 + b"\r", (b"long" * 50)[:21], b"last"]


def test_a_file_may_end_with_a_newline_or_without() -> None:
    assert list(split_lines([b"a\nb\n"], 9)) == list(split_lines([b"a\nb"], 9)) == [b"a", b"b"]


def test_a_line_without_end_is_not_held() -> None:
    chunks = (b"x" * 1000 for _ in range(1000))
    assert [len(line) for line in split_lines(chunks, 100)] == [101]
