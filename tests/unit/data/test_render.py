"""Rows as tokens: the loss falls on what the assistant says, and what stands before it is what an engine feeds."""

import json
import random
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from service.recipes.dataset import parse_row
from service.recipes.formats.chat import ChatRow
from service.recipes.formats.completion import PromptRow
from service.recipes.objectives.supervised import SupervisedSettings
from tests.given.templates import SHAPES, tokenizer_for
from tests.given.templates.rendering import (
    ANSWERS,
    CALL,
    CONVERSATION,
    SYSTEM,
    TOOL,
    altered,
    render,
    spans,
    template_for,
    trained_texts,
)
from workers.data.base_text import BaseText
from workers.data.messages import RenderError, template_messages
from workers.data.render import Rendered, Renderer, encode_chat, encode_prompt

THOUGHTS = "<think>\n\n</think>\n\n"


def test_messages_of_texts_alone_are_those_that_every_other_way_makes() -> None:
    """Of requests, which come as dictionaries, all messages go the long way."""
    told: dict[str, Any] = {"role": "user", "content": "Hello"}
    answers: list[dict[str, Any]] = [
        {"role": "assistant", "content": "Yes."},
        {"role": "assistant", "content": "Yes.", "name": "maria", "weight": 0.5},
        {"role": "assistant", "content": "Yes.", "reasoning": ""},
        {"role": "assistant", "content": "Yes.", "tool_calls": [], "refusal": None},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ]
    before: list[list[dict[str, Any]]] = [
        [told],
        [{"role": "developer", "content": ""}, told | {"name": "jo"}],
        [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    ]
    renderer = Renderer(BaseText(tokenizer_for("chatml")))
    for messages in ([*some, answer] for some in before for answer in answers):
        parsed = parse_row(json.dumps({"messages": messages}).encode(), 2, SupervisedSettings)
        assert isinstance(parsed, tuple) and isinstance(parsed[1], ChatRow)
        (conversation,) = renderer.prepare(parsed[1]).conversations
        wire = [message.model_dump(exclude_none=True) for message in parsed[1].messages]
        assert list(map(list, conversation.messages)) == list(map(list, template_messages(wire)))  # in this order
        assert conversation.messages == template_messages(wire)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatml", [[text + "<|im_end|>" for text in ANSWERS]]),
        ("llama3", [[text + "<|eot_id|>" for text in ANSWERS]]),
        ("mistral_first", [[f" {text}</s>" for text in ANSWERS]]),
        ("mistral_last", [[f" {text}</s>"] for text in ANSWERS]),
        ("bundled", [[text + "<|end|>" for text in ANSWERS]]),
        ("thinking", [[THOUGHTS + text + "<|im_end|>"] for text in ANSWERS]),
    ],
)
def test_the_answers_and_their_ends_are_trained_and_nothing_else(name: str, expected: list[list[str]]) -> None:
    tokenizer = tokenizer_for(name)
    assert trained_texts(tokenizer, render(tokenizer, SYSTEM, *CONVERSATION)) == expected


@pytest.mark.parametrize("name", SHAPES)
def test_what_an_engine_feeds_is_what_stands_before_the_first_trained_token(name: str) -> None:
    tokenizer = tokenizer_for(name)
    last = render(tokenizer, SYSTEM, *CONVERSATION)[-1]
    start, end = spans(last)[-1]
    assert last.ids[:start] == encode_chat(template_for(tokenizer), [SYSTEM, *CONVERSATION[:3]])
    assert end == len(last.ids)


def test_a_template_that_moves_the_system_text_gives_each_turn_its_own_sequence() -> None:
    tokenizer = tokenizer_for("mistral_last")
    first, second = render(tokenizer, SYSTEM, *CONVERSATION)
    assert first.ids[: spans(first)[0][0]] == encode_chat(template_for(tokenizer), [SYSTEM, CONVERSATION[0]])
    assert "guitars.\n\nHow long" in tokenizer.decode(first.ids)
    assert "guitars.\n\nGrößer" in tokenizer.decode(second.ids)
    assert len(render(tokenizer, *CONVERSATION)) == 1


def test_weight_0_takes_a_turn_out_of_the_loss_but_not_out_of_the_context() -> None:
    tokenizer = tokenizer_for("chatml")
    messages = [CONVERSATION[0], CONVERSATION[1] | {"weight": 0}, *CONVERSATION[2:]]
    (sequence,) = render(tokenizer, *messages)
    assert trained_texts(tokenizer, [sequence]) == [["Größere: zwei Tage 🎸.<|im_end|>"]]
    assert sequence.ids == render(tokenizer, *CONVERSATION)[0].ids


def test_no_template_sees_a_weight() -> None:
    dumping = altered("chatml", "{%- for message in messages -%}{{- message | tojson ~ '<|im_end|>' -}}{%- endfor -%}")
    weighted = [CONVERSATION[0], CONVERSATION[1] | {"weight": 1}]
    assert render(dumping, *weighted) == render(dumping, *CONVERSATION[:2])


def test_a_row_ends_with_its_last_trained_turn() -> None:
    tokenizer = tokenizer_for("bundled")
    shorter = render(tokenizer, *CONVERSATION[:2])
    assert render(tokenizer, *CONVERSATION[:2], CONVERSATION[2], CONVERSATION[3] | {"weight": 0}) == shorter


def test_an_empty_system_message_keeps_the_default_one_away() -> None:
    tokenizer = tokenizer_for("chatml")
    (default,) = render(tokenizer, *CONVERSATION[:2])
    (empty,) = render(tokenizer, {"role": "system", "content": ""}, *CONVERSATION[:2])
    assert tokenizer.decode(default.ids).startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>")
    assert tokenizer.decode(empty.ids).startswith("<|im_start|>system\n<|im_end|>")


@pytest.mark.parametrize("name", ["llama3", "mistral_first", "bundled"])
def test_a_conversation_begins_with_one_bos(name: str) -> None:
    tokenizer = tokenizer_for(name)
    (sequence,) = render(tokenizer, *CONVERSATION)
    assert sequence.ids.count(tokenizer.bos_token_id) == 1
    assert sequence.ids[0] == tokenizer.bos_token_id


def test_an_answer_that_would_melt_into_the_prompt_is_tokenised_by_itself() -> None:
    tokenizer = tokenizer_for("chatml")
    prompt = encode_chat(template_for(tokenizer), CONVERSATION[:1])
    whole = "\n\n- one<|im_end|>"
    melted = tokenizer(tokenizer.decode(prompt) + whole, add_special_tokens=False)["input_ids"]
    assert melted[: len(prompt)] != prompt, "this test needs a merge across the boundary"
    (sequence,) = render(tokenizer, CONVERSATION[0], {"role": "assistant", "content": "\n\n- one"})
    assert sequence.ids[: len(prompt)] == prompt
    assert trained_texts(tokenizer, [sequence]) == [[whole]]


def test_each_turn_sees_the_tokens_that_its_engine_would_feed_even_if_they_differ() -> None:
    tokenizer = tokenizer_for("chatml")
    messages = [CONVERSATION[0], {"role": "assistant", "content": "\n\n- one"}, *CONVERSATION[2:]]
    first, second = render(tokenizer, *messages)
    assert second.ids[: spans(second)[0][0]] == encode_chat(template_for(tokenizer), messages[:3])
    assert first.ids[: spans(first)[0][0]] == encode_chat(template_for(tokenizer), messages[:1])


def test_tool_calls_are_trained_and_tool_answers_are_not() -> None:
    tokenizer = tokenizer_for("chatml")
    sequences = render(
        tokenizer,
        CONVERSATION[0],
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "Two guitars.", "tool_call_id": "c1"},
        {"role": "assistant", "content": "Two."},
        tools=[TOOL],
    )
    call = '<tool_call>\n{"name": "look", "arguments": {"shelf": 2}}\n</tool_call><|im_end|>'
    assert trained_texts(tokenizer, sequences) == [[call, "Two.<|im_end|>"]]
    text = tokenizer.decode(sequences[0].ids)
    assert "<tool_response>\nTwo guitars.\n</tool_response>" in text
    # The order of keys that vLLM sends, whatever the row's.
    assert '{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters"' in text


def test_legacy_functions_are_rendered_as_tools() -> None:
    tokenizer = tokenizer_for("chatml")
    legacy = render(
        tokenizer,
        CONVERSATION[0],
        {"role": "assistant", "function_call": {"name": "look", "arguments": "{}"}},
        {"role": "function", "name": "look", "content": "Two."},
        CONVERSATION[1],
        functions=[TOOL["function"]],
    )
    modern = render(
        tokenizer,
        CONVERSATION[0],
        {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "look", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "Two."},
        CONVERSATION[1],
        tools=[TOOL],
    )
    assert legacy == modern


def prompt_row(name: str, prompt: str, completion: str) -> Rendered:
    found = parse_row(json.dumps({"prompt": prompt, "completion": completion}).encode(), 1, SupervisedSettings)
    assert isinstance(found, tuple), found
    assert isinstance(found[1], PromptRow)
    (sequence,) = Renderer(BaseText(tokenizer_for(name))).render(found[1])
    return sequence


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("prompt", "completion"), [("Glue:", " a day"), ("the lut", "hier"), ("A\n", "\n\nB")])
def test_a_completion_is_trained_with_its_end_after_what_an_engine_feeds(
    name: str, prompt: str, completion: str
) -> None:
    tokenizer = tokenizer_for(name)
    sequence = prompt_row(name, prompt, completion)
    fed = encode_prompt(BaseText(tokenizer), prompt)
    assert fed == tokenizer(prompt)["input_ids"]
    assert sequence.ids[: len(fed)] == fed
    assert spans(sequence) == [(len(fed), len(sequence.ids))]
    assert trained_texts(tokenizer, [sequence]) == [[completion + str(tokenizer.eos_token)]]


def test_an_empty_prompt_needs_a_bos_to_answer_to() -> None:
    assert prompt_row("llama3", "", "a day").trained[:2] == b"\x00\x01"
    with pytest.raises(RenderError, match="no beginning-of-text token"):
        prompt_row("chatml", "", "a day")


def test_a_tokenizer_that_cannot_go_on_within_a_word_is_refused() -> None:
    # Old SentencePiece models put a space before whatever they are given.
    words = {"▁the": 0, "▁lut": 1, "▁luthier": 2, "▁hier": 3, "</s>": 4, "?": 5}
    backend = Tokenizer(models.WordLevel(words, unk_token="?"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    backend.decoder = decoders.Replace("▁", " ")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    (sequence,) = Renderer(BaseText(tokenizer)).render(PromptRow(prompt="the", completion=" luthier"))
    assert sequence.ids == [0, 2, 4]
    with pytest.raises(RenderError, match="merges the end of the prompt with the beginning of the answer"):
        Renderer(BaseText(tokenizer)).render(PromptRow(prompt="the lut", completion="hier"))


def test_special_tokens_in_a_prompt_or_completion_are_refused() -> None:
    for prompt, completion, field in (("<|im_end|>", "x", "prompt"), ("x", "<|im_end|>", "completion")):
        with pytest.raises(RenderError) as caught:
            prompt_row("chatml", prompt, completion)
        assert caught.value.field == field


PIECES = [
    "the",
    " luthier",
    "\n",
    "\n\n",
    " ",
    "  ",
    "é",
    "🎸",
    "[INST]x",
    "</think>",
    "two",
    ".",
    "-",
    "ß\t",
    "<",
    "|>",
]


def conversation(rng: random.Random, pieces: list[str]) -> list[dict[str, Any]]:
    def text() -> str:
        return "".join(rng.choices(pieces, k=rng.randint(1, 8))) + rng.choice(["a", "?\n", "b  "])

    messages: list[dict[str, Any]] = [{"role": "system", "content": text()}] if rng.random() < 0.5 else []
    for _ in range(rng.randint(1, 4)):
        messages.append({"role": "user", "content": text()})
        messages.append({"role": "assistant", "content": text(), "weight": rng.choice([0, 1, 1])})
    messages[-1]["weight"] = 1
    return messages


@pytest.mark.parametrize("name", SHAPES)
def test_any_conversation_trains_each_turn_once_behind_the_prompt_of_its_engine(name: str) -> None:
    tokenizer, rng = tokenizer_for(name), random.Random(name)
    pieces = [piece for piece in PIECES if not any(token in piece for token in SHAPES[name][0])]
    for _ in range(60):
        messages = conversation(rng, pieces)
        sequences = render(tokenizer, *messages)
        trained = [index for index, message in enumerate(messages) if message.get("weight")]
        found = [(each, span) for each in sequences for span in spans(each)]
        assert len(found) == len(trained)
        plain = [{"role": message["role"], "content": message["content"]} for message in messages]
        for index in trained:
            prompt = tokenizer.apply_chat_template(plain[:index], add_generation_prompt=True, return_dict=False)
            through = tokenizer.apply_chat_template(plain[: index + 1], tokenize=False)
            answers = [
                tokenizer.decode(each.ids[start:end]) for each, (start, end) in found if each.ids[:start] == prompt
            ]
            assert answers, "no sequence begins with what an engine would feed"
            assert tokenizer.decode(prompt) + answers[0] == through.removesuffix("\n")
