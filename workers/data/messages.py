"""Converts OpenAI's messages to those that chat templates expect, as vLLM does: text parts joined by newlines, the
arguments of tool calls as objects, tools with their keys in OpenAI's order, and the role developer as system where the
template has no developer.

Handles dictionaries only; `workers.data.template` renders them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError

from service.domain.json import DoubledKey, JsonObject
from service.recipes.formats.chat import join_text, parse_arguments

# Legacy function calls have no id; some templates want nine letters or digits.
LEGACY_CALL_ID = "call00000"
REASONING = "reasoning_content"  # the field's name in our messages; a template's is `Dialect.reasoning`

Messages = list[JsonObject]
Tools = list[Any]  # of dicts


class RenderError(Exception):
    """The base cannot be trained or prompted with this; `field` is a path as in `service.recipes.dataset.Problem`."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


@dataclass(frozen=True)
class Dialect:
    """The form in which one template expects messages.

    `developer`: it supports that role. `reasoning`: its field for an assistant's reasoning, empty if it shows none.
    `parts`: content is a list of parts. `calls`: it shows tool calls; `call_text`: with arguments as JSON text;
    `call_null`: with null as an empty content.
    """

    developer: bool = False
    reasoning: str = ""
    parts: bool = False
    calls: bool = True
    call_text: bool = False
    call_null: bool = False

    def spell(self, messages: Messages) -> Messages:
        """`messages` in the form that the template expects."""
        if not self.developer and any(message["role"] == "developer" for message in messages):
            messages = _with_one_system([_as_system(message) for message in messages])
        return [self._message(message) for message in messages]

    def _message(self, message: JsonObject) -> JsonObject:
        spelled = {key: value for key, value in message.items() if key != REASONING}
        if self.reasoning and message.get(REASONING):
            spelled[self.reasoning] = message[REASONING]
        if self.parts and message["role"] != "tool":
            spelled["content"] = [{"type": "text", "text": message["content"]}]
        if calls := message.get("tool_calls"):
            if self.call_null and not message["content"]:
                spelled["content"] = None
            if self.call_text:
                spelled["tool_calls"] = [_with_text(call) for call in calls]
        return spelled


def _as_system(message: JsonObject) -> JsonObject:
    return message | {"role": "system"} if message["role"] == "developer" else message


def _with_one_system(messages: Messages) -> Messages:
    """All system texts in one first message, as vLLM does it for messages of a developer."""
    systems = [message for message in messages if message["role"] == "system"]
    if systems == messages[:1]:
        return messages
    content = "\n\n".join(message["content"] for message in systems if message["content"])
    others = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": content}, *others]


def _with_text(call: JsonObject) -> JsonObject:
    function = call["function"]
    return call | {"function": function | {"arguments": json.dumps(function["arguments"], ensure_ascii=False)}}


def template_messages(messages: Sequence[Mapping[str, Any]]) -> Messages:
    """OpenAI's messages in our form for chat templates, before a `Dialect`. Raises RenderError."""
    return [_template_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _template_message(message: Mapping[str, Any], field: str) -> JsonObject:
    plain = {key: value for key, value in message.items() if value is not None}
    call = plain.pop("function_call", None)
    calls = plain.pop("tool_calls", []) + (
        [{"id": LEGACY_CALL_ID, "type": "function", "function": call}] if call else []
    )
    plain.pop("weight", None)
    thoughts = _thoughts(plain, field)
    try:
        plain["content"] = join_text(plain.get("content", ""))
        if calls:
            plain["tool_calls"] = [_template_call(call) for call in calls]
    except PydanticCustomError as error:
        raise RenderError(f"{field}.content", error.message()) from error
    except DoubledKey as doubled:
        reason = f"has arguments with the key {doubled.key!r} twice; remove one of them"
        raise RenderError(f"{field}.tool_calls", reason) from doubled
    except ValueError as error:
        raise RenderError(f"{field}.tool_calls", "has arguments that are not the JSON text of an object") from error
    if plain["role"] == "function":
        plain |= {"role": "tool", "tool_call_id": LEGACY_CALL_ID}
    return plain | ({REASONING: thoughts} if thoughts else {})


def _thoughts(plain: JsonObject, field: str) -> str:
    """Removes an assistant's reasoning from `plain` and returns it: `reasoning_content`, or its synonym `reasoning`."""
    found = [plain.pop(name) for name in (REASONING, "reasoning") if plain.get(name)]
    plain.pop(REASONING, None), plain.pop("reasoning", None)
    if any(not isinstance(text, str) for text in found):
        raise RenderError(f"{field}.{REASONING}", "is not a string")
    if len(set(found)) > 1:
        raise RenderError(f"{field}.{REASONING}", 'differs from "reasoning", which means the same; remove one of them')
    if found and plain["role"] != "assistant":
        raise RenderError(f"{field}.{REASONING}", "is allowed in assistant messages only; remove it")
    return str(found[0]) if found else ""


def _template_call(call: Mapping[str, Any]) -> JsonObject:
    function = dict(call["function"])
    if isinstance(function.get("arguments", ""), str):
        function["arguments"] = parse_arguments(function.get("arguments", ""))
    return {**call, "function": function}


def template_tools(tools: Sequence[Mapping[str, Any]]) -> Tools | None:
    """OpenAI's tools with their keys in a fixed order and null for missing ones; None if there are no tools."""
    return [_template_tool(tool["function"]) for tool in tools] or None


def _template_tool(function: Mapping[str, Any]) -> JsonObject:
    first = {key: function.get(key) for key in ("name", "description", "parameters")}
    rest = {key: value for key, value in function.items() if key not in first and value is not None}
    return {"type": "function", "function": first | rest}
