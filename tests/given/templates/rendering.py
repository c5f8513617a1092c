"""One conversation, and what tests ask of its rendering."""

import json
from datetime import date
from itertools import groupby
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from service.recipes.dataset import parse_row
from service.recipes.formats.chat import ChatRow
from service.recipes.objectives.supervised import SupervisedSettings
from tests.given.templates import SHAPES, tokenizer_for
from workers.data.base_text import BaseText
from workers.data.messages import RenderError
from workers.data.render import Rendered, Renderer
from workers.data.template import ChatTemplate

SYSTEM = {"role": "system", "content": "You know guitars."}
CONVERSATION = [
    {"role": "user", "content": "How long does the glue dry?"},
    {"role": "assistant", "content": "A day."},
    {"role": "user", "content": "Größer 🎸?"},
    {"role": "assistant", "content": "Größere: zwei Tage 🎸."},
]
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"shelf":2}'}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "description": "Looks."}}


def chat_row(row: dict[str, Any]) -> ChatRow:
    """The row as a line of a training file becomes it."""
    found = parse_row(json.dumps(row).encode(), 1, SupervisedSettings)
    assert isinstance(found, tuple), found
    parsed = found[1]
    assert isinstance(parsed, ChatRow)
    return parsed


def render(
    base: PreTrainedTokenizerFast | BaseText, *messages: dict[str, Any], day: date | None = None, **rest: Any
) -> list[Rendered]:
    text = base if isinstance(base, BaseText) else BaseText(base)
    return Renderer(text, day=day).render(chat_row({"messages": list(messages)} | rest))


def template_for(tokenizer: PreTrainedTokenizerFast) -> ChatTemplate:
    return ChatTemplate(BaseText(tokenizer))


def refused(base: PreTrainedTokenizerFast | BaseText, *messages: dict[str, Any], **rest: Any) -> tuple[str, str]:
    with pytest.raises(RenderError) as caught:
        render(base, *messages, **rest)
    return caught.value.field, caught.value.reason


def spans(sequence: Rendered) -> list[tuple[int, int]]:
    """(start, end) of every stretch of trained tokens."""
    assert len(sequence.ids) == len(sequence.trained)
    runs = [(flag, [index for index, _ in run]) for flag, run in groupby(enumerate(sequence.trained), lambda x: x[1])]
    return [(run[0], run[-1] + 1) for flag, run in runs if flag]


def trained_texts(tokenizer: PreTrainedTokenizerFast, sequences: list[Rendered]) -> list[list[str]]:
    return [[tokenizer.decode(each.ids[start:end]) for start, end in spans(each)] for each in sequences]


def altered(name: str, template: str) -> PreTrainedTokenizerFast:
    """The shape's tokenizer with another template."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_for(name).backend_tokenizer,
        bos_token=SHAPES[name][1],
        eos_token=SHAPES[name][2],
        chat_template=template,
    )


ANSWERS = ["A day.", "Größere: zwei Tage 🎸."]
