"""Where a chat completion's fields come from in the request of /v1/responses: its errors, in the caller's words.

Engines and the gateway name `messages[2].content[0]` or `response_format`; the caller sent `input[1].content[0]` and
`text.format`.
"""

import re
from dataclasses import dataclass, replace

from service.domain.errors import InvalidRequest

RENAMED = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "logprobs": "include",
    "tool_choice.function": "tool_choice",
}
_FIELD = re.compile(rf"({'|'.join(map(re.escape, RENAMED))})(?![\w\[])(.*)", re.DOTALL)
_TOOL = re.compile(r"(tools\[\d+\])\.function(.*)", re.DOTALL)
_MESSAGE = re.compile(r"messages\[(\d+)\](?:\.tool_calls\[(\d+)\])?(.*)", re.DOTALL)
_NAMED = re.compile(r"(?<![\w.])(messages\[\d+\][\w.\[\]]*\w\]?|messages\[\d+\])|'([a-z_]+(?:\.[a-z_]+)*)'")


@dataclass(frozen=True)
class Place:
    """The item of one message, what its content is called there ("" for the item itself), the items of its calls."""

    message: str
    content: str
    calls: tuple[str, ...] = ()

    def with_content(self, message: str, content: str) -> "Place":
        return replace(self, message=message, content=content)

    def with_call(self, item: str) -> "Place":
        return replace(self, calls=(*self.calls, item))


@dataclass(frozen=True)
class Places:
    """By the index of a message."""

    messages: tuple[Place, ...]

    def caller_error(self, error: InvalidRequest) -> InvalidRequest:
        """The same error about the request that the caller sent."""
        message = _NAMED.sub(self._renamed, error.message)
        param = None if error.param is None else self.caller_name(error.param)
        return type(error)(message, param=param, code=error.code)

    def caller_name(self, name: str) -> str:
        """A chat completion's field as the caller's; a name that both have stays."""
        if found := _MESSAGE.fullmatch(name):
            return self._in_message(int(found[1]), found[2], found[3])
        if found := _TOOL.fullmatch(name):
            return found[1] + found[2]
        if found := _FIELD.fullmatch(name):
            return RENAMED[found[1]] + found[2]
        return name

    def _in_message(self, index: int, call: str | None, rest: str) -> str:
        if index >= len(self.messages):
            return "input"
        place = self.messages[index]
        if call is not None:
            item = place.calls[int(call)] if int(call) < len(place.calls) else place.message
            return item + rest.replace(".function", "", 1).replace(".id", ".call_id", 1)
        for chat, here in ((".content", place.content), (".tool_call_id", ".call_id")):
            if rest.startswith(chat):
                return place.message + here + rest[len(chat) :]
        return place.message + rest

    def _renamed(self, found: re.Match[str]) -> str:
        return self.caller_name(found[1]) if found[1] else f"'{self.caller_name(found[2])}'"
