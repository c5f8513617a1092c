"""Checks that a chat template shows the base everything that the user wrote.

There are two checks, because a template may always leave out some kind of part, or only some texts. The first replaces
the user's words by marks that occur in no conversation, once for every shape of conversation, so that words which also
occur elsewhere cannot hide a missing part. The second looks for the user's own words in the rendered text. A template
may shorten an assistant's message once others follow it, for example by its reasoning; such a message must be complete
when it is the last one.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from service.domain.json import JsonObject
from workers.data.messages import REASONING, Messages, RenderError, Tools
from workers.data.template import ChatTemplate

SHAPES_KEPT = 1024
_TAG = re.compile(r"\s*(<[^<>\s]{1,40}>)\s*")

Words = tuple[str, str, str]  # field, what it is, the text


def check_complete(template: ChatTemplate, messages: Messages, tools: Tools | None, *, answer_next: bool) -> None:
    """Raises RenderError if the template leaves out a part of conversations of this shape, whatever their text.

    `answer_next` as in `ChatTemplate.render`.
    """
    shape = (answer_next, len(tools or []), *(_shape(message) for message in messages))
    if shape in template.shapes_seen:
        return
    marked = [_marked_message(message, index) for index, message in enumerate(messages)]
    marked_tools = [
        {"type": "function", "function": tool["function"] | {"name": _tool_mark(index)}}
        for index, tool in enumerate(tools or [])
    ]
    try:
        text = template.render(marked, marked_tools or None, answer_next=answer_next)
    except RenderError:
        if not template.dialect.calls:  # the template's own error rarely names the calls as the reason
            _refuse_calls(template, messages)
        raise
    _check(template, marked, marked_tools or None, text, "")
    for index in range(len(tools or [])):
        if _tool_mark(index) not in text:
            raise RenderError(f"tools[{index}]", left_out(template, "tools", "tools"))
    if len(template.shapes_seen) < SHAPES_KEPT:
        template.shapes_seen.add(shape)


def check_words(template: ChatTemplate, messages: Messages, tools: Tools | None, text: str) -> None:
    """Raises RenderError if `text`, which the template rendered from `messages`, lacks some of the user's words."""
    _check(template, messages, tools, text, "part of ")


def words_of(message: JsonObject, field: str) -> Iterable[Words]:
    """The texts of this message that the template must show."""
    if thoughts := message.get(REASONING):
        yield f"{field}.{REASONING}", "the reasoning of this message", thoughts
    if content := message["content"]:
        yield f"{field}.content", f"the content of this {message['role']} message", content
    for index, call in enumerate(message.get("tool_calls", [])):
        place = f"{field}.tool_calls[{index}]"
        yield place, "the names of tool calls", call["function"]["name"]
        for leaf in _leaves(call["function"]["arguments"]):
            yield place, "the arguments of tool calls", leaf


def find_words(text: str, words: str, start: int = 0) -> int:
    """The position in `text` after the first `words` from `start` on, or -1.

    Matches them verbatim or escaped as in a JSON or Python string; space around them and around tags may differ.
    """
    stripped = words.strip()
    at = text.find(stripped, start)
    if at >= 0:
        return at + len(stripped)
    quoted = (json.dumps(words, ensure_ascii=False)[1:-1], json.dumps(words)[1:-1], repr(words)[1:-1])
    ends = (at + len(writing) for writing in quoted if (at := text.find(writing, start)) >= 0)
    return next(ends, _find_pieces(text, [piece for piece in _TAG.split(stripped) if piece], start))


def _find_pieces(text: str, pieces: list[str], start: int) -> int:
    if len(pieces) < 2:
        return -1
    begin = text.find(pieces[0], start)
    while begin >= 0:
        end = begin
        for piece in pieces:
            while end < len(text) and text[end].isspace():
                end += 1
            if not text.startswith(piece, end):
                break
            end += len(piece)
        else:
            return end
        begin = text.find(pieces[0], begin + 1)
    return -1


def _check(template: ChatTemplate, messages: Messages, tools: Tools | None, text: str, part: str) -> None:
    reached = 0
    for index, message in enumerate(messages):
        alone: str | None = None
        for field, what, words in words_of(message, f"messages[{index}]"):
            end = find_words(text, words, reached)
            if end >= 0:
                reached = end
                continue
            if message["role"] == "assistant" and find_words(text, words) < 0:
                if alone is None:
                    alone = template.render(messages[: index + 1], tools, answer_next=False)
                if find_words(alone, words) >= 0 or find_words(alone, _without_thoughts(template, words)) >= 0:
                    continue
            elif find_words(text, words) >= 0:
                continue
            raise RenderError(field, left_out(template, field, part + what))


def _without_thoughts(template: ChatTemplate, words: str) -> str:
    """An earlier answer as a template that drops thoughts shows it."""
    return words.rpartition(template.end_of_thoughts)[2] if template.end_of_thoughts else words


def left_out(template: ChatTemplate, field: str, what: str) -> str:
    """The reason of a RenderError for a part that the template does not show."""
    if field.endswith(REASONING) and not template.dialect.reasoning:
        closing = template.end_of_thoughts
        opening = closing.replace("/", "")
        inline = f", or write it in the content as '{opening}\\n...\\n{closing}\\n\\n...'" if closing else ""
        return f"the base's chat template does not show reasoning; remove it{inline}"
    return f"the base's chat template leaves out {what}; remove this part or use another base"


def _leaves(value: Any) -> Iterable[str]:
    """Keys, texts and numbers of a call's arguments; templates differ in how they write true, false and null."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str) and value.strip():
        yield value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield json.dumps(value)


def _refuse_calls(template: ChatTemplate, messages: Messages) -> None:
    for index, message in enumerate(messages):
        if message.get("tool_calls"):
            field = f"messages[{index}].tool_calls[0]"
            raise RenderError(field, left_out(template, field, "the names of tool calls"))


def _shape(message: JsonObject) -> tuple[object, ...]:
    return (
        message["role"],
        bool(message["content"]),
        bool(message.get(REASONING)),
        len(message.get("tool_calls", [])),
    )


def _tool_mark(index: int) -> str:
    return f"luthier-tool-{index}-"


def _marked_message(message: JsonObject, index: int) -> JsonObject:
    marked = dict(message)
    if message["content"]:
        marked["content"] = f"luthier-mark-{index}-"
    if message.get(REASONING):
        marked[REASONING] = f"luthier-thought-{index}-"
    if calls := message.get("tool_calls"):
        marked["tool_calls"] = [_marked_call(call, f"{index}-{number}-") for number, call in enumerate(calls)]
    return marked


def _marked_call(call: JsonObject, number: str) -> JsonObject:
    return call | {"function": {"name": f"luthier-name-{number}", "arguments": {"mark": f"luthier-argument-{number}"}}}
