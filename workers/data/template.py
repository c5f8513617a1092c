"""A conversation as text: what a base's chat template makes of OpenAI's messages.

Messages go to the template as vLLM sends them: text parts joined by newlines, tool calls' arguments as objects, tools
with their keys in OpenAI's order. Knows text only; tokens are `workers.data.render`'s.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from pydantic_core import PydanticCustomError
from transformers import PreTrainedTokenizerBase

from service.recipes.formats.chat import join_text, parse_arguments

# Legacy function calls have no id; some templates want nine letters or digits.
LEGACY_CALL_ID = "call00000"

Messages = list[dict[str, Any]]
Tools = list[Any]  # of dicts


class RenderError(Exception):
    """The base cannot show or learn this; `field` is a path as in `service.recipes.dataset.Problem`."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


def template_messages(messages: Sequence[Mapping[str, Any]]) -> Messages:
    """OpenAI's messages in the words of chat templates. Raises RenderError."""
    return [_template_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _template_message(message: Mapping[str, Any], field: str) -> dict[str, Any]:
    plain = {key: value for key, value in message.items() if value is not None}
    call = plain.pop("function_call", None)
    calls = plain.pop("tool_calls", []) + (
        [{"id": LEGACY_CALL_ID, "type": "function", "function": call}] if call else []
    )
    plain.pop("weight", None)
    try:
        plain["content"] = join_text(plain.get("content", ""))
        if calls:
            plain["tool_calls"] = [_template_call(call) for call in calls]
    except PydanticCustomError as error:
        raise RenderError(f"{field}.content", error.message()) from error
    except ValueError as error:
        raise RenderError(f"{field}.tool_calls", "the arguments are not the JSON text of an object") from error
    if plain["role"] == "function":
        plain |= {"role": "tool", "tool_call_id": LEGACY_CALL_ID}
    return plain


def _template_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    if isinstance(function.get("arguments", ""), str):
        function["arguments"] = parse_arguments(function.get("arguments", ""))
    return {**call, "function": function}


def template_tools(tools: Sequence[Mapping[str, Any]]) -> Tools | None:
    """OpenAI's tools in one order of keys, missing ones null; none is None."""
    return [_template_tool(tool["function"]) for tool in tools] or None


def _template_tool(function: Mapping[str, Any]) -> dict[str, Any]:
    first = {key: function.get(key) for key in ("name", "description", "parameters")}
    rest = {key: value for key, value in function.items() if key not in first and value is not None}
    return {"type": "function", "function": first | rest}


def render_text(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Tools | None, *, answer_next: bool
) -> str:
    """The conversation as the base sees it; with `answer_next`, up to where the assistant's answer begins."""
    try:
        text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=answer_next)
    except (TemplateError, TypeError, ValueError, LookupError) as error:
        reason = f"the base's chat template refuses this conversation: {str(error)[:200]}"
        raise RenderError("messages", reason) from error
    assert isinstance(text, str)
    return text


def special_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches every special token of the base; without any, nothing."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens = sorted(added | set(tokenizer.all_special_tokens), key=len, reverse=True)
    return re.compile("|".join(re.escape(token) for token in tokens) or r"(?!)")


def find_end_of_turn(tokenizer: PreTrainedTokenizerBase, pattern: re.Pattern[str]) -> str:
    """The special token that the template puts behind an assistant's answer. Raises RenderError."""
    mark = "luthier-mark"
    probe = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": mark}]
    _, _, closing = render_text(tokenizer, probe, None, answer_next=False).partition(mark)
    found = pattern.search(closing)
    if found is None:
        raise RenderError("messages", "the base's chat template ends no answer with a special token")
    return found[0]


def refuse_special(pattern: re.Pattern[str], value: Any, field: str) -> None:
    """Raises RenderError where text of the user's would be read as a special token."""
    for text in _strings(value):
        if found := pattern.search(text):
            raise RenderError(field, f"holds {found[0]!r}, which is a special token of the base; write it differently")


def refuse_special_messages(pattern: re.Pattern[str], messages: Messages, tools: Tools | None) -> None:
    """`refuse_special` for all that a template is given."""
    for index, message in enumerate(messages):
        for key, value in message.items():
            refuse_special(pattern, value, f"messages[{index}].{key}")
    refuse_special(pattern, tools, "tools")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def check_complete(tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Tools | None) -> None:
    """Raises RenderError where the template leaves something out: it renders marks in place of the user's words."""
    marks = _Marks()
    marked = [_mark_message(marks, message, f"messages[{index}]") for index, message in enumerate(messages)]
    marked_tools = [
        {"type": "function", "function": tool["function"] | {"name": marks.new(f"tools[{index}]", "tools")}}
        for index, tool in enumerate(tools or [])
    ]
    _check_shown(marks, render_text(tokenizer, marked, marked_tools or None, answer_next=False))


def check_calls(tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Tools | None) -> None:
    """Raises RenderError where the template leaves out what an assistant has called: many know no tools."""
    marks = _Marks()
    marked = [_mark_calls(marks, message, f"messages[{index}]") for index, message in enumerate(messages)]
    if marks.places:
        _check_shown(marks, render_text(tokenizer, marked, tools, answer_next=True))


def _check_shown(marks: "_Marks", text: str) -> None:
    for mark, (field, what) in marks.places.items():
        if mark not in text:
            raise RenderError(field, f"the base's chat template leaves out {what}")


class _Marks:
    """Words that no conversation holds, each standing for one place in it."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[str, str]] = {}

    def new(self, field: str, what: str) -> str:
        mark = f"luthier-mark-{len(self.places)}-"
        self.places[mark] = (field, what)
        return mark


def _mark_message(marks: _Marks, message: dict[str, Any], field: str) -> dict[str, Any]:
    marked = dict(message)
    if message["content"]:
        marked["content"] = marks.new(f"{field}.content", f"the content of this {message['role']} message")
    return _mark_calls(marks, marked, field)


def _mark_calls(marks: _Marks, message: dict[str, Any], field: str) -> dict[str, Any]:
    calls = [
        _mark_call(marks, call, f"{field}.tool_calls[{index}]")
        for index, call in enumerate(message.get("tool_calls", []))
    ]
    return message | {"tool_calls": calls} if calls else message


def _mark_call(marks: _Marks, call: dict[str, Any], field: str) -> dict[str, Any]:
    name = marks.new(field, "the names of tool calls")
    arguments = {"mark": marks.new(field, "the arguments of tool calls")}
    return call | {"function": {"name": name, "arguments": arguments}}
