"""What an encoder reads and what its decoder learns of a row: exactly what an engine reads, and only the answer."""

import json
from typing import Any

import pytest

from service.recipes.objective import find_objective
from tests.given.encoder_decoders import START, load_encoder_decoder
from workers.data.base_text import BaseText
from workers.data.check import DatasetInvalid, check_file
from workers.data.content_key import text_digest
from workers.data.render import encode_chat, encode_prompt
from workers.data.row_masks import counts, row_masks
from workers.data.template import ChatTemplate
from workers.data.tokenized import TokenizedDataset
from workers.toy_base.tokenizer import CHAT_TEMPLATE

SYSTEM, ASKED = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say yes."}
YES, MORE = {"role": "assistant", "content": "yes"}, {"role": "user", "content": "Again."}


@pytest.fixture
def text() -> BaseText:
    """Of a base without a template."""
    return load_encoder_decoder("t5").text


@pytest.fixture
def templated(text: BaseText) -> BaseText:
    text.tokenizer.chat_template = CHAT_TEMPLATE
    text.tokenizer.bos_token = "<|begin|>"
    return text


def check(text: BaseText, *rows: dict[str, Any], context_tokens: int = 256) -> TokenizedDataset:
    return check_file(
        [json.dumps(row).encode() for row in rows], text, context_tokens=context_tokens, row_limit_bytes=10_000,
        examples_minimum=1, param="training_file", file_id="file-1", objective=find_objective("supervised"),
    )  # fmt: skip


def reason(text: BaseText, row: dict[str, Any], **options: Any) -> str:
    with pytest.raises(DatasetInvalid) as invalid:
        check(text, row, **options)
    return invalid.value.error.message


def written(dataset: TokenizedDataset, row: int, text: BaseText) -> str:
    ids, trained = dataset.row(row)
    assert ids[0] == START and trained.tolist() == [0] + [1] * (len(ids) - 1)
    return str(text.tokenizer.decode(ids[1:]))


def test_a_prompt_is_read_and_its_completion_written(text: BaseText) -> None:
    rows = [{"prompt": "2+2", "completion": "4"}, {"prompt": "3+3", "completion": "six", "weight": 0.5}]
    dataset = check(text, *rows)
    for row, wanted in enumerate(("4<|end|>", "six<|end|>")):
        assert dataset.second(row).tolist() == encode_prompt(text, rows[row]["prompt"])
        assert written(dataset, row, text) == wanted
    assert dataset.token_weights is not None and dataset.token_weights[-4:].tolist() == [0.5] * 4
    masks = list(row_masks(dataset, [1, 1], text.tokenizer))
    shown = [(piece.text, piece.trained) for piece in masks[0].sequences[0].pieces]
    assert shown == [("2+2<|end|>", False), ("4<|end|>", True)]
    assert counts(dataset, [1, 1], 256).tokens == dataset.num_tokens


def test_without_a_template_one_question_is_read_as_an_engine_reads_it(text: BaseText) -> None:
    dataset = check(text, {"messages": [SYSTEM, ASKED, YES]}, {"messages": [ASKED, YES]})
    assert text.tokenizer.decode(dataset.second(0)) == "Be brief.\n\nSay yes.<|end|>"
    assert dataset.second(0).tolist() == encode_chat(ChatTemplate(text), [SYSTEM, ASKED])
    assert dataset.second(1).tolist() == encode_prompt(text, "Say yes.")
    assert written(dataset, 0, text) == "yes<|end|>"


def test_with_a_template_every_trained_turn_is_a_pair_of_its_own(templated: BaseText) -> None:
    row = [SYSTEM, ASKED, YES, MORE, {**YES, "content": "yes again", "weight": 0.5}]
    dataset = check(templated, {"messages": row}, {"messages": [ASKED, {**YES, "weight": 0}, MORE, YES]})
    assert len(dataset) == 3
    template = ChatTemplate(templated)
    for place, before in enumerate((row[:2], row[:4])):
        assert dataset.second(place).tolist() == encode_chat(template, [{**one} for one in before])
    assert [written(dataset, place, templated) for place in range(3)] == [
        "yes<|end|>",
        "yes again<|end|>",
        "yes<|end|>",
    ]
    assert templated.tokenizer.decode(dataset.second(2)).endswith("Again.<|end|><|assistant|>")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [ASKED, YES, MORE, YES]}, "would not be read: the base has no chat template"),
        ({"messages": [SYSTEM, YES]}, "must be a user message"),
        ({"messages": [ASKED, YES], "tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"messages": [ASKED, {"role": "assistant", "content": "<|end|>"}]}, "a special token of the base"),
        ({"messages": [ASKED, {**YES, "reasoning_content": "well"}]}, "writes plain text"),
        ({"messages": [YES]}, "has no message before it"),
        ({"prompt": "<|user|>", "completion": "a"}, "a special token of the base"),
    ],
)
def test_what_would_be_left_out_is_refused(text: BaseText, row: dict[str, Any], said: str) -> None:
    assert said in reason(text, row)


def test_both_sides_together_fit_the_context(text: BaseText) -> None:
    row = {"prompt": "12345", "completion": "678"}  # 6 tokens and 5, with the start and both ends
    assert check(text, row, context_tokens=11).num_tokens == 11
    assert "is too long for the base (11 tokens, at most 10)" in reason(text, row, context_tokens=10)


def test_the_same_tokenizer_of_a_causal_base_has_another_key(text: BaseText) -> None:
    causal = BaseText(text.tokenizer, text.end_ids, text.num_embeddings)
    assert text_digest(causal) != text_digest(text)
