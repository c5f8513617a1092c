"""Answers with a label: what is read, what is refused, which rows they become, and whose completion is mismatched."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from service.recipes.objectives.kto import KtoSettings
from tests.given.templates import tokenizer_for
from workers.data.base_text import BaseText
from workers.data.check import DatasetInvalid, check_file
from workers.data.examples import with_mismatched
from workers.data.lines import Glance
from workers.data.row_masks import row_masks
from workers.data.tokenized import DatasetBuilder, TokenizedDataset

USER = {"role": "user", "content": "How long does it dry?"}
GOOD = {"role": "assistant", "content": "A day."}
BAD = {"role": "assistant", "content": "Who knows?"}
PAIR = {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}


def check(rows: Iterable[dict[str, Any]]) -> TokenizedDataset:
    lines = (json.dumps(row).encode() for row in rows)
    return check_file(
        lines, BaseText(tokenizer_for("bundled")), context_tokens=512, row_limit_bytes=10_000, examples_minimum=1,
        param="training_file", file_id="file-X", objective=KtoSettings,
    )  # fmt: skip


def problems(*rows: dict[str, Any]) -> list[tuple[int, str, str]]:
    with pytest.raises(DatasetInvalid) as caught:
        check(rows)
    found = caught.value.details["problems"]
    return [(problem["line"], problem["field"], problem["reason"]) for problem in found]


def chat(answer: dict[str, Any], label: Any, **rest: Any) -> dict[str, Any]:
    return {"messages": [USER, answer], "label": label, **rest}


def answers(dataset: TokenizedDataset) -> list[str]:
    decode = tokenizer_for("bundled").decode
    return [decode(tokens[trained == 1].tolist()) for tokens, trained in map(dataset.row, range(len(dataset)))]


def test_only_the_last_answer_is_trained_and_its_label_is_the_examples() -> None:
    earlier = {"role": "assistant", "content": "What dries?"}
    rows = [{"messages": [USER, earlier, USER, GOOD], "label": True}, chat(BAD, False)]
    dataset = check(rows)
    assert (dataset.num_examples, len(dataset), dataset.rows_per_example) == (2, 4, 2)
    assert answers(dataset) == ["A day.<|end|>", "Who knows?<|end|>", "Who knows?<|end|>", "A day.<|end|>"]
    assert dataset.row_labels is not None and dataset.row_labels.tolist() == [1, 1, 0, 0]
    assert dataset.row_weights is None


def test_prompts_with_completions_and_pairs_are_read_too() -> None:
    prompts = [
        {"prompt": "one", "completion": " two", "label": True},
        {"prompt": "a", "completion": " b", "label": False},
    ]
    assert answers(check(prompts))[0::2] == [" two<|end|>", " b<|end|>"]
    pairs = check([PAIR, PAIR | {"input": {"messages": [USER | {"content": "And then?"}]}}])
    assert pairs.row_labels is not None and pairs.row_labels.tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    assert answers(pairs)[0::2] == ["A day.<|end|>", "Who knows?<|end|>"] * 2


def test_a_rows_weight_is_that_of_its_example() -> None:
    dataset = check([chat(GOOD, True), chat(BAD, False, weight=0.25)])
    assert dataset.row_weights is not None and dataset.row_weights.tolist() == [1, 1, 0.25, 0.25]
    assert dataset.token_weights is None


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (chat(GOOD, "yes"), "label", "must be true or false"),
        (chat(GOOD, 1), "label", "must be true or false"),
        ({"messages": [USER, GOOD, USER], "label": True}, "messages", "must end with the assistant message"),
        (chat(GOOD | {"weight": 0.5}, True), "messages", 'has a weight in its last message; write it beside "label"'),
        (chat(GOOD, True, weight=2), "weight", "must be a number from 0 to 1"),
        ({"prompt": "a", "completion": "", "label": True}, "completion", "is empty"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(row: dict[str, Any], field: str, reason: str) -> None:
    found = problems(chat(GOOD, True), row)
    assert any(line == 2 and place == field and why.startswith(reason) for line, place, why in found), found


def prompts_and_completions(*wanted: tuple[list[int], list[int]]) -> TokenizedDataset:
    rows = DatasetBuilder()
    for prompt, completion in wanted:
        rows.add(prompt + completion, [0] * len(prompt) + [1] * len(completion), label=1)
    return with_mismatched(rows.build(), 256)


def test_every_completion_is_mismatched_once_with_another_prompt() -> None:
    made = prompts_and_completions(
        ([1], [10]), ([2, 2], [20]), ([2, 2], [21]), ([3], [30]), ([2, 2], [22]), ([1], [11])
    )
    mismatched = [made.row(row)[0].tolist() for row in range(1, len(made), 2)]
    # By prompt the rows are 10 11 20 21 22 30; each takes what stands three places before it.
    assert mismatched == [[1, 21], [2, 2, 30], [2, 2, 10], [3, 20], [2, 2, 11], [1, 22]]
    assert [made.row(row)[1].tolist() for row in (3, 7)] == [[0, 0, 1], [0, 1]]


def test_a_prompt_of_most_rows_takes_the_completions_of_all_others_in_turn() -> None:
    made = prompts_and_completions(([1], [10]), ([1], [11]), ([2], [20]), ([1], [12]), ([3], [30]), ([1], [13]))
    mismatched = [made.row(row)[0].tolist() for row in range(1, len(made), 2)]
    assert mismatched == [[1, 20], [1, 30], [2, 10], [1, 20], [3, 11], [1, 30]]


@pytest.mark.parametrize("order", ["pairs", "good then bad", "all good, then all bad"])
def test_mismatched_answers_are_wanted_as_often_as_the_files_are(order: str) -> None:
    """If all were unwanted their likelihood would fall, and z would be 0 from the first step to the last."""
    asked = [[USER | {"content": f"Question {number}?"}] for number in range(6)]
    if order == "pairs":
        file = [PAIR | {"input": {"messages": messages}} for messages in asked]
    else:
        file = [{"messages": [*messages, one], "label": one is GOOD} for messages in asked for one in (GOOD, BAD)]
    if order == "all good, then all bad":
        file = file[0::2] + file[1::2]
    dataset = check(file)
    assert sorted(answers(dataset)[1::2]) == sorted(answers(dataset)[0::2])
    for row in range(0, len(dataset), 2):
        assert dataset.prompt(row).tolist() == dataset.prompt(row + 1).tolist()


def test_a_mismatched_row_is_cut_to_the_context_and_equal_prompts_take_the_row_before() -> None:
    rows = DatasetBuilder()
    for completion in ([10, 11, 12], [20]):
        rows.add([1, 2, *completion], [0, 0] + [1] * len(completion), label=0)
    made = with_mismatched(rows.build(), 4)
    assert [made.row(row)[0].tolist() for row in (1, 3)] == [[1, 2, 20], [1, 2, 10, 11]]


class Seen:
    """How many sequences each row has that is right."""

    signs = False

    def __init__(self) -> None:
        self.sequences: list[int] = []

    def see(self, seen: Glance, num_sequences: int) -> None:
        self.sequences.append(num_sequences)


def test_the_masks_of_a_file_show_the_answers_and_not_the_mismatched_rows() -> None:
    rows = [chat(GOOD, True), chat(BAD, False), chat(GOOD, True, weight=0)]
    rows_seen = Seen()
    lines = (json.dumps(row).encode() for row in rows)
    dataset = check_file(
        lines, BaseText(tokenizer_for("bundled")), context_tokens=512, row_limit_bytes=10_000, examples_minimum=1,
        param="training_file", file_id="file-X", objective=KtoSettings,
        observer=rows_seen,
    )  # fmt: skip
    masks = row_masks(dataset, rows_seen.sequences, tokenizer_for("bundled"))
    shown = ["".join(piece.text for one in mask.sequences for piece in one.pieces if piece.trained) for mask in masks]
    assert shown == ["A day.<|end|>", "Who knows?<|end|>", ""]
