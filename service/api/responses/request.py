"""A request of /v1/responses as one of /v1/chat/completions, or an error that names what cannot be translated.

Items that a model made in one turn become one message: its reasoning, its text and its calls. What no chat completion
has is refused here; what this model's engine cannot do is refused where chat completions are, and `places` words it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.api.responses.places import Place, Places
from service.api.schemas.responses import (
    AllowedTools,
    Calling,
    Content,
    CreateResponseRequest,
    FunctionCallItem,
    FunctionCallOutputItem,
    FunctionTool,
    InputItem,
    MessageItem,
    NamedFunction,
    Other,
    Part,
    ReasoningItem,
    Tool,
    ToolMode,
)
from service.domain.errors import InvalidRequest
from service.domain.json import JsonObject

CALL_LIMIT = 128  # of one turn, as in a chat message
LOGPROBS = "message.output_text.logprobs"
REASONING = "reasoning.encrypted_content"  # of items that no model here makes: nothing to include
SAME = frozenset(
    {"model", "temperature", "top_p", "stream", "user", "safety_identifier", "metadata", "parallel_tool_calls"}
    | {"prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "service_tier"}
)
STATEFUL = frozenset({"previous_response_id", "conversation"})
UNSERVED = frozenset({"prompt", "moderation", "context_management", "access_programs", "image"})
RESEND = "Responses are not stored here: send the earlier items themselves in 'input'."


@dataclass(frozen=True)
class ChatRequest:
    """The fields of a chat completion, and where in the request each of its messages comes from."""

    fields: JsonObject
    places: Places


def chat_request(body: CreateResponseRequest) -> ChatRequest:
    """The request as a chat completion's. Raises InvalidRequest."""
    _check_served(body)
    conversation = _Conversation()
    if body.instructions is not None:
        conversation.say("system", body.instructions, Place("instructions", ""))
    if isinstance(body.input, str):
        conversation.say("user", body.input, Place("input", ""))
    else:
        for index, item in enumerate(body.input):
            conversation.add(item, f"input[{index}]")
    conversation.check()
    fields = body.model_dump(include=set(SAME), exclude_none=True)
    fields |= {"messages": conversation.messages} | _output_fields(body) | _tool_fields(body)
    return ChatRequest(fields, Places(tuple(conversation.places)))


def _check_served(body: CreateResponseRequest) -> None:
    """Raises InvalidRequest for what a chat completion has no word for."""
    for name in body.model_dump(include=set(STATEFUL | UNSERVED), exclude_none=True):
        raise _unsupported(name, RESEND) if name in STATEFUL else _unsupported(name)
    if body.background:
        raise _unsupported("background", "A response is made while the client waits: use 'stream' for long ones.")
    if body.truncation == "auto":
        raise _unsupported("truncation", "Only 'disabled' is: no item of 'input' is left out for the model.")
    for index, name in enumerate(body.include or ()):
        if name not in (LOGPROBS, REASONING):
            raise _unsupported(f"include[{index}]", f"Only '{LOGPROBS}' is.")
    if body.top_logprobs and LOGPROBS not in (body.include or ()):
        raise InvalidRequest(f"'top_logprobs' needs '{LOGPROBS}' in 'include'.", param="top_logprobs")
    if body.reasoning is not None:
        settings = body.reasoning.model_dump(exclude={"effort"}, exclude_none=True)
        for name in settings:
            raise _unsupported(f"reasoning.{name}")


def _output_fields(body: CreateResponseRequest) -> JsonObject:
    """What is said about the output, in a chat completion's words."""
    fields: JsonObject = {}
    if body.stream:
        fields["stream_options"] = {"include_usage": True}
    if body.max_output_tokens is not None:
        fields["max_completion_tokens"] = body.max_output_tokens
    if LOGPROBS in (body.include or ()):
        fields |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    if body.reasoning is not None and body.reasoning.effort is not None:
        fields["reasoning_effort"] = body.reasoning.effort
    if body.text is not None and body.text.verbosity is not None:
        fields["verbosity"] = body.text.verbosity
    if body.text is not None and body.text.format is not None:
        fields["response_format"] = _response_format(body.text.format)
    return fields


def _response_format(wanted: JsonObject) -> JsonObject:
    """The same format; what is wrong with it is found where chat completions find it."""
    given = {name: value for name, value in wanted.items() if value is not None}
    if given.get("type") != "json_schema":
        return given
    return {"type": "json_schema", "json_schema": {name: value for name, value in given.items() if name != "type"}}


def _tool_fields(body: CreateResponseRequest) -> JsonObject:
    """`tools` and `tool_choice`; of allowed tools only those are shown to the model."""
    tools = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(body.tools or ())]
    choice = _tool_choice(body.tool_choice)
    if isinstance(body.tool_choice, AllowedTools):
        allowed = {tool.name for tool in body.tool_choice.tools}
        if unknown := allowed - {tool["function"]["name"] for tool in tools}:
            raise InvalidRequest(
                f"'tool_choice' allows {sorted(unknown)[0]!r}, which is not in 'tools'.", param="tool_choice.tools"
            )
        tools = [tool for tool in tools if tool["function"]["name"] in allowed]
    fields: JsonObject = {"tools": tools} if tools else {}
    return fields if choice is None else fields | {"tool_choice": choice}


def _tool(tool: Tool, place: str) -> JsonObject:
    if not isinstance(tool, FunctionTool):
        raise InvalidRequest(
            f"Unsupported value: '{tool.type[:64]}' is a tool that OpenAI runs; only tools of the type 'function' can "
            "be called here. Remove it and try again.",
            param=f"{place}.type",
            code="unsupported_value",
        )
    _check_neutral(tool.defer_loading, (False,), f"{place}.defer_loading")
    _check_neutral(tool.allowed_callers, (["direct"],), f"{place}.allowed_callers")
    _check_neutral(tool.output_schema, (), f"{place}.output_schema")
    function = tool.model_dump(include={"name", "description", "parameters", "strict"}, exclude_none=True)
    return {"type": "function", "function": function}


def _tool_choice(choice: NamedFunction | AllowedTools | Other | ToolMode | None) -> str | JsonObject | None:
    match choice:
        case NamedFunction():
            return {"type": "function", "function": {"name": choice.name}}
        case AllowedTools():
            return choice.mode
        case Other():
            raise InvalidRequest(
                "Unsupported value: 'tool_choice' is 'none', 'auto', 'required', a function or 'allowed_tools' here.",
                param="tool_choice.type",
                code="unsupported_value",
            )
        case _:
            return choice


@dataclass
class _Conversation:
    """The messages so far, and the place of each. The last one is `open` while it is a turn that may have more."""

    messages: list[JsonObject] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    open: bool = False

    def add(self, item: InputItem, place: str) -> None:
        match item:
            case MessageItem(role="assistant"):
                turn = self._turn(place, free="content")
                turn["content"] = _content(item.content, f"{place}.content")
                self.places[-1] = self.places[-1].with_content(place, ".content")
            case MessageItem():
                self.say(item.role, _content(item.content, f"{place}.content"), Place(place, ".content"))
            case FunctionCallItem():
                _check_calling(item, place)
                call = {"name": item.name, "arguments": item.arguments}
                calls = self._turn(place).setdefault("tool_calls", [])
                calls.append({"id": item.call_id, "type": "function", "function": call})
                if len(calls) > CALL_LIMIT:
                    raise InvalidRequest(f"A turn has at most {CALL_LIMIT} function calls.", param=place)
                self.places[-1] = self.places[-1].with_call(place)
            case FunctionCallOutputItem():
                _check_calling(item, place)
                named = {"tool_call_id": item.call_id} | ({"name": item.name} if item.name else {})
                output = _content(item.output, f"{place}.output") or ""
                self.say("tool", output, Place(place, ".output"), named)
            case ReasoningItem():
                self._reason(item, place)
            case Other():
                raise _unread(item, place)

    def say(self, role: str, content: str | list[JsonObject], place: Place, more: JsonObject | None = None) -> None:
        """A message of its own."""
        self.messages.append({"role": role, "content": content, **(more or {})})
        self.places.append(place)
        self.open = False

    def check(self) -> None:
        """Raises InvalidRequest where nothing is left to be read, or a turn holds its reasoning only."""
        for message, place in zip(self.messages, self.places, strict=True):
            if message["role"] == "assistant" and not message.keys() & {"content", "tool_calls"}:
                raise InvalidRequest("This reasoning belongs to no message or call: send both.", param=place.message)
        if not self.messages:
            raise InvalidRequest("'input' holds nothing that the model could read.", param="input")

    def _turn(self, place: str, free: str = "") -> JsonObject:
        """The assistant's turn that continues, or a new one where that already has what is to be `free`."""
        if not self.open or free in self.messages[-1]:
            self.messages.append({"role": "assistant"})
            self.places.append(Place(place, ""))
            self.open = True
        return self.messages[-1]

    def _reason(self, item: ReasoningItem, place: str) -> None:
        _check_neutral(item.encrypted_content, (), f"{place}.encrypted_content")
        _check_neutral(item.summary, ([],), f"{place}.summary")
        said = "".join(part.text for part in item.content or ())
        if not said:
            return
        if self.open and self.messages[-1].keys() & {"content", "tool_calls"}:
            self.open = False  # reasoning begins a turn
        turn = self._turn(place)
        turn["reasoning"] = turn.get("reasoning", "") + said


def _content(content: Content, place: str) -> str | list[JsonObject]:
    """Text as text; parts as text parts. Raises InvalidRequest for other parts."""
    if isinstance(content, str):
        return content
    return [_part(part, f"{place}[{index}]") for index, part in enumerate(content)]


def _part(part: Part, place: str) -> JsonObject:
    if isinstance(part, Other):
        raise _unsupported(place, f"A part of the type '{part.type[:64]}' cannot be read here; 'input_text' can.")
    _check_neutral(part.annotations, ([],), f"{place}.annotations")
    return {"type": "text", "text": part.text}


def _unread(item: Other, place: str) -> InvalidRequest:
    if item.type == "item_reference":
        return _unsupported(
            place, f"It refers to an item of an earlier response. {RESEND} SDKs do with 'store: false'."
        )
    return _unsupported(place, f"An item of the type '{item.type[:64]}' cannot be read here.")


def _check_calling(item: Calling, place: str) -> None:
    _check_neutral(item.namespace, (), f"{place}.namespace")
    _check_neutral(item.caller, ({"type": "direct"},), f"{place}.caller")


def _check_neutral(value: object, neutral: Sequence[object], place: str) -> None:
    """Raises InvalidRequest unless the value asks for what happens anyway."""
    if value is not None and value not in neutral:
        raise _unsupported(place)


def _unsupported(place: str, why: str = "Remove it and try again.") -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported parameter: '{place}' is not supported here. {why}", param=place, code="unsupported_parameter"
    )
