"""Preference rows: what is read, what is refused, and the pairs of sequences that they become."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.recipes.dataset import parse_row
from service.recipes.formats.preference import PreferenceRow
from service.recipes.objective import find_objective, hyperparameters_type, resolve_auto
from service.recipes.objectives.dpo import DpoSettings
from tests.given.templates import tokenizer_for
from tests.given.templates.rendering import template_for
from workers.data.base_text import BaseText
from workers.data.batches import steps_per_epoch
from workers.data.check import DatasetInvalid, check_file
from workers.data.render import encode_chat
from workers.data.tokenized import TokenizedDataset

USER = {"role": "user", "content": "How long does it dry?"}
GOOD = {"role": "assistant", "content": "A day."}
BAD = {"role": "assistant", "content": "Who knows?"}
CHAT = {"messages": [USER, GOOD]}
LEGACY = {"prompt": "a", "completion": "b"}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"shelf": 2}'}}


def pair(*messages: Any, good: Any = GOOD, bad: Any = BAD, **rest: Any) -> dict[str, Any]:
    given = {"messages": list(messages or [USER]), "tools": [], "parallel_tool_calls": True} | rest
    return {"input": given, "preferred_output": [good], "non_preferred_output": [bad]}


def check(rows: Iterable[dict[str, Any]], template: str = "bundled", **options: Any) -> TokenizedDataset:
    defaults: dict[str, Any] = {
        "context_tokens": 512, "row_limit_bytes": 10_000, "examples_minimum": 1, "param": "training_file",
        "file_id": "file-X", "method": "dpo",
    }  # fmt: skip
    lines = (json.dumps(row).encode() for row in rows)
    given = defaults | options
    given["objective"] = find_objective(given.pop("method"))
    return check_file(lines, BaseText(tokenizer_for(template)), **given)


def refused(*rows: dict[str, Any], **options: Any) -> DatasetInvalid:
    with pytest.raises(DatasetInvalid) as caught:
        check(rows, **options)
    return caught.value


def problems(*rows: dict[str, Any], **options: Any) -> list[tuple[int, str, str]]:
    found = refused(*rows, **options).details["problems"]
    return [(problem["line"], problem["field"], problem["reason"]) for problem in found]


@pytest.mark.parametrize("template", ["bundled", "chatml", "thinking", "llama3", "mistral_first", "mistral_last"])
def test_a_pair_is_two_rows_of_one_prompt_and_only_the_answers_train(template: str) -> None:
    tokenizer = tokenizer_for(template)
    history = [USER, {"role": "assistant", "content": "Long.", "weight": 1}, USER]
    dataset = check([pair(*history), pair()], template)
    assert (dataset.num_examples, len(dataset), dataset.rows_per_example) == (2, 4, 2)
    assert dataset.rows_of([1, 0]) == [2, 3, 0, 1]
    asked = [{key: value for key, value in message.items() if key != "weight"} for message in history]
    prompt = encode_chat(template_for(tokenizer), asked)
    for row, answer in enumerate(["A day.", "Who knows?"]):
        tokens, trained = dataset.row(row)
        assert tokens[trained == 0].tolist() == prompt
        assert tokens[: len(prompt)].tolist() == prompt
        text = tokenizer.decode(tokens[trained == 1].tolist())
        assert answer in text and not text.endswith(answer)  # but with its end-of-turn token


def test_both_spellings_give_the_same_tokens_and_may_stand_in_one_file() -> None:
    guide = pair()
    specification = {
        "input": guide["input"],
        "preferred_completion": guide["preferred_output"],
        "non_preferred_completion": guide["non_preferred_output"],
    }
    dataset = check([guide, specification])
    assert dataset.row(0)[0].tolist() == dataset.row(2)[0].tolist()
    assert dataset.row(1)[0].tolist() == dataset.row(3)[0].tolist()


def test_answers_may_call_tools() -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    call = {"role": "assistant", "tool_calls": [CALL]}
    dataset = check([pair(USER, good=call, tools=tools)], "chatml")
    tokens, trained = dataset.row(0)
    assert '"shelf": 2' in tokenizer_for("chatml").decode(tokens[trained == 1].tolist())


def test_a_dataset_of_pairs_is_one_after_save_and_load(tmp_path: Path) -> None:
    dataset = check([pair(), pair(good=BAD, bad=GOOD)])
    dataset.save(tmp_path / "train.safetensors")
    loaded = TokenizedDataset.load(tmp_path / "train.safetensors")
    assert (loaded.num_examples, loaded.rows_per_example) == (2, 2)
    with pytest.raises(ValueError, match="lacks rows"):
        TokenizedDataset(loaded.tokens[:3], loaded.trained[:3], np.array([0, 3]), 2)


def test_batch_size_epochs_and_the_minimum_count_pairs() -> None:
    dataset = check([pair()] * 10, examples_minimum=10)
    resolved = resolve_auto(
        DpoSettings, hyperparameters_type(DpoSettings)(batch_size=4).model_dump(), dataset.num_examples
    )
    plain = {"loss_type": "sigmoid", "length_normalized": False, "label_smoothing": 0.0}
    assert resolved == {"batch_size": 4, "learning_rate_multiplier": 1.0, "n_epochs": 10, "beta": 0.1, **plain}
    assert steps_per_epoch(dataset.num_examples, resolved["batch_size"]) == 3
    invalid = refused(*[pair()] * 5, examples_minimum=10)
    assert invalid.error.message == "Training file has 5 example(s), but must have at least 10 examples"


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"input": {"messages": [USER]}, "preferred_output": [GOOD]}, "non_preferred_output", 'has no "non_preferr'),
        ({"preferred_output": [GOOD], "non_preferred_output": [BAD]}, "input", 'has no "input"'),
        (pair() | {"input": "hi"}, "input", "is not an object"),
        (pair() | {"input": {"messages": []}}, "input.messages", "has no messages"),
        (pair({"role": "bot"}), "input.messages[0].role", 'has the unknown role "bot"'),
        (pair(USER | {"content": " "}), "input.messages[0].content", "is empty"),
        (pair(USER, {"role": "assistant"}), "input.messages[1].content", "is empty"),
        (pair(USER | {"weight": 1}), "input.messages[0].weight", 'contains an extra "weight": only assistant'),
        (pair(good=GOOD | {"weight": 1}), "preferred_output[0].weight", 'contains an extra "weight"'),
        (pair(good=USER), "preferred_output[0].role", "Input should be 'assistant'"),
        (pair(bad={"role": "assistant"}), "non_preferred_output[0].content", "is empty"),
        (pair() | {"preferred_output": []}, "preferred_output", "must hold exactly one assistant message"),
        (pair() | {"non_preferred_output": [BAD, BAD]}, "non_preferred_output", "must hold exactly one assistant"),
        (pair() | {"preferred_output": GOOD}, "preferred_output", "Input should be a valid list"),
        (pair() | {"preferred_completion": [GOOD]}, "preferred_output", 'contains an extra "preferred_output"'),
        (pair() | {"mood": 1}, "mood", 'contains an extra "mood"'),
        (pair(bad=GOOD), "non_preferred_output", "gives the base the same tokens as preferred_output"),
        (pair(good=GOOD | {"content": "<|end|>"}), "preferred_output[0].content", "contains '<|end|>'"),
        (pair(USER | {"content": "<|end|>"}), "input.messages[0].content", "contains '<|end|>'"),
        ({}, "", "Unexpected file format, expected preference pairs."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(row: dict[str, Any], field: str, reason: str) -> None:
    found = problems(pair(), row)
    assert any(line == 2 and place == field and why.startswith(reason) for line, place, why in found), found


def test_a_problem_of_the_input_names_its_message_from_one() -> None:
    message = refused(pair(USER, {"role": "bot"})).error.message
    assert "Example 1, message 2: has the unknown role" in message
    assert "(input.messages[1].role)" in message


@pytest.mark.parametrize("side", ["preferred_output", "non_preferred_output"])
def test_each_sequence_must_fit_into_the_context_by_itself(side: str) -> None:
    row = pair() | {side: [{"role": "assistant", "content": "x" * 50}]}
    longest = max(len(check([row]).row(number)[0]) for number in range(2))
    assert check([row], context_tokens=longest).num_examples == 1
    reason = f"is too long for the base ({longest} tokens, at most {longest - 1}); shorten it"
    assert problems(row, context_tokens=longest - 1) == [(1, side, reason)]


@pytest.mark.parametrize(
    ("row", "method", "given", "meant"),
    [
        (CHAT, "dpo", "fine-tune-chat", "supervised"),
        (LEGACY, "dpo", "fine-tune-completion", "supervised"),
        (pair(), "supervised", "fine-tune-preference", "dpo', 'kto', 'orpo', 'reward_model' or 'simpo"),
    ],
)
def test_a_file_for_another_method_is_refused_in_openais_words(
    row: dict[str, Any], method: str, given: str, meant: str
) -> None:
    invalid = refused(*[row] * 3, method=method)
    assert (invalid.error.code, invalid.error.param) == ("invalid_training_file", "training_file")
    assert invalid.error.message == (
        "The job failed due to an invalid training file. Invalid file format. "
        f"Input file file-X is in the {given} format, but the specified fine-tuning job is not using '{meant}' "
        f"as the training method (provided method={method})."
    )
    other = refused(row, method=method, param="validation_file").error
    assert (other.code, other.param) == ("invalid_validation_file", "validation_file")


def test_a_chat_row_among_pairs_is_a_problem_of_its_line() -> None:
    difference = "has a different format from the file's first row"
    assert problems(pair(), CHAT, CHAT) == [(2, "", f"{difference}: chat messages after preference pairs")]
    assert problems(CHAT, pair(), method="supervised") == [
        (2, "", f"{difference}: preference pairs after chat messages")
    ]


def test_nothing_of_the_input_is_learned() -> None:
    found = parse_row(json.dumps(pair(USER, GOOD | {"weight": 1}, USER)).encode(), 1, DpoSettings)
    assert isinstance(found, tuple), found
    row = found[1]
    assert isinstance(row, PreferenceRow)
    assert [conversation.trained for conversation in row.conversations] == [[3], [3]]
