"""Which fields of a request are sent to an engine. Nothing that a client sent is ignored silently: every field of
OpenAI's create schemas is one of

honoured   sent on, because the engine does it (`Capabilities`, one row per kind of engine);
harmless   accepted and not sent: it labels the request, or says how OpenAI should bill, cache or pad it;
neutral    accepted only with values that change nothing, such as `n` candidates for `n` completions;
refused    everything else, with a 400 that names the field.

The user's table is `openapi/inference.md`. Fields outside OpenAI's schemas never come here: the wire models forbid
them, and of tools and response formats only OpenAI's own pass: engines have more (vLLM's `structural_tag`), which would
bypass the wire models. Without a parser for a base's tool calls vLLM 0.32 supports `tool_choice: "none"` only. Works on
plain dicts, because that is what an engine gets; uses no wire model and no HTTP.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from service.domain.errors import InvalidRequest
from service.domain.json import JsonObject
from service.recipes.base import EngineKind, Serving

Endpoint = Literal["completions", "chat/completions", "classifications", "embeddings"]
Fields = JsonObject

FORMATS = ("text", "json_object", "json_schema")  # of `response_format`


@dataclass(frozen=True)
class Capabilities:
    """The fields that one kind of engine honours: of every request, of a message, and the types of a content part.

    `greedy_n`: whether it returns several completions at a temperature of 0, where all of them are the same.
    """

    completions: frozenset[str]
    chat: frozenset[str]
    classifications: frozenset[str]  # none: the engine does not classify
    embeddings: frozenset[str]  # none: it returns no vectors
    message: frozenset[str]
    parts: frozenset[str]
    greedy_n: bool

    def honoured(self, endpoint: Endpoint) -> frozenset[str]:
        """The fields of that endpoint's requests that the engine honours."""
        match endpoint:
            case "completions":
                return self.completions
            case "chat/completions":
                return self.chat
            case "classifications":
                return self.classifications
            case "embeddings":
                return self.embeddings


_SAMPLING = frozenset(
    {"max_tokens", "temperature", "top_p", "n", "stop", "seed", "presence_penalty", "frequency_penalty"}
    | {"logprobs", "stream", "stream_options"}
)
EMBEDDED = Capabilities(
    completions=_SAMPLING | {"prompt", "echo"},
    chat=_SAMPLING | {"messages", "max_completion_tokens", "top_logprobs"},
    classifications=frozenset({"input", "messages"}),
    embeddings=frozenset({"input", "encoding_format", "dimensions"}),
    message=frozenset({"role", "content", "name", "tool_call_id", "tool_calls", "function_call", "reasoning"}),
    parts=frozenset({"text"}),
    greedy_n=True,
)
TOOLS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})
VLLM = Capabilities(
    completions=EMBEDDED.completions | {"logit_bias"},
    chat=EMBEDDED.chat | {"logit_bias", "response_format"} | TOOLS,
    classifications=frozenset(),
    embeddings=frozenset(),
    message=EMBEDDED.message - {"function_call"},
    parts=frozenset({"text"}),
    greedy_n=False,
)
CAPABILITIES: dict[EngineKind, Capabilities] = {"embedded": EMBEDDED, "vllm": VLLM}

DEFINITIONS = frozenset({"tools", "functions"})
HARMLESS = frozenset(
    {"user", "safety_identifier", "metadata", "parallel_tool_calls"}
    | {"prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"}
)


# Null is neutral everywhere: it means "not given". `best_of` is neutral with 0 and with the value of `n`.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": ("medium",),
}


def engine_fields(endpoint: Endpoint, fields: Fields, serving: Serving) -> Fields:
    """The `fields` for the engine; they hold no nulls. Raises InvalidRequest for what it cannot do."""
    capabilities = CAPABILITIES[serving.engine]
    _check_together(fields, capabilities)
    honoured = capabilities.honoured(endpoint)
    if not honoured:
        raise InvalidRequest(
            f"The engine '{serving.engine}', which serves this model's base, has no /v1/{endpoint}; models of a base "
            "with the engine 'embedded' are called there.",
            param="model",
            code="model_not_supported",
        )
    for name in sorted(fields, key=lambda name: name not in DEFINITIONS):  # what is asked for, before how it is chosen
        if name not in honoured | HARMLESS:
            _check_neutral(name, fields[name], fields, endpoint)
    sent = {name: value for name, value in fields.items() if name in honoured}
    if "max_completion_tokens" in sent:
        sent.pop("max_tokens", None)  # its older name, with the same value
    if "stream_options" in sent:
        sent["stream_options"] = {"include_usage": sent["stream_options"].get("include_usage", False)}
    if "response_format" in sent:
        check_format(sent["response_format"])
    if honoured >= TOOLS:
        sent = {name: value for name, value in sent.items() if name not in TOOLS}
        sent |= tool_fields(fields, bool(serving.tool_call_parser))
    if "messages" in sent:
        sent["messages"] = [
            _message(message, f"messages[{index}]", capabilities) for index, message in enumerate(fields["messages"])
        ]
    return sent


def _check_together(fields: Fields, capabilities: Capabilities) -> None:
    """Raises InvalidRequest for valid fields that contradict each other."""
    if fields.get("n", 1) > 1 and fields.get("temperature") == 0 and not capabilities.greedy_n:
        raise InvalidRequest(
            "Unsupported value: 'n' must be 1 with a 'temperature' of 0, where every answer would be the same.",
            param="n",
            code="unsupported_value",
        )
    if 0 < fields.get("best_of", 0) < fields.get("n", 1):
        raise InvalidRequest("'best_of' must be at least 'n': it counts the candidates.", param="best_of")
    if "top_logprobs" in fields and not fields.get("logprobs", False):
        raise InvalidRequest("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
    limits = {fields[name] for name in ("max_tokens", "max_completion_tokens") if name in fields}
    if len(limits) > 1:
        raise InvalidRequest(
            "'max_tokens' and 'max_completion_tokens' differ. Use 'max_completion_tokens' alone.", param="max_tokens"
        )


def _check_neutral(name: str, value: object, fields: Fields, endpoint: Endpoint) -> None:
    values = (0, fields.get("n", 1)) if name == "best_of" else NEUTRAL.get(name, ())
    if value in values:
        return
    if values in ((), ([],), ({},)):
        raise _unsupported(name, name, _elsewhere(name, endpoint))
    offered = " or ".join(repr(value) for value in values)
    raise InvalidRequest(
        f"Unsupported value: '{name}' supports only {offered} with this model.{_elsewhere(name, endpoint)}",
        param=name,
        code="unsupported_value",
    )


def _elsewhere(name: str, endpoint: Endpoint) -> str:
    """Which engines honour the field that this one does not, as a sentence with a space before it; empty if none."""
    able = [kind for kind, capabilities in CAPABILITIES.items() if name in capabilities.honoured(endpoint)]
    named = " or ".join(f"'{kind}'" for kind in able)
    return f" Models whose base is served by the engine {named} (serving.engine in the catalogue) do." if able else ""


def _message(message: Fields, where: str, capabilities: Capabilities) -> Fields:
    """A message for the engine, without what SDKs send back of a response (`tool_calls: []`, nulls)."""
    message = _with_one_reasoning(message, where)
    for name in message.keys() - capabilities.message:
        if message[name] != []:
            raise _unsupported(name, f"{where}.{name}")
    sent = {name: value for name, value in message.items() if name in capabilities.message and value != []}
    if "tool_calls" in sent:
        check_calls(sent["tool_calls"], f"{where}.tool_calls")
    if "content" not in sent and not sent.keys() & {"tool_calls", "function_call"}:
        raise InvalidRequest(
            "Invalid value for 'content': expected a string or an array of parts, got null.", param=f"{where}.content"
        )
    if isinstance(sent.get("content"), list):
        sent["content"] = [
            _part(part, f"{where}.content[{index}]", capabilities) for index, part in enumerate(sent["content"])
        ]
    return sent


def _with_one_reasoning(message: Fields, where: str) -> Fields:
    """An assistant's reasoning has two names; both engines read `reasoning`."""
    found = {name: message[name] for name in ("reasoning_content", "reasoning") if message.get(name)}
    if found and message["role"] != "assistant":
        raise _unsupported(next(iter(found)), f"{where}.{next(iter(found))}")
    if len(set(found.values())) > 1:
        raise InvalidRequest(
            "'reasoning_content' and 'reasoning' mean the same and differ. Send one of them.",
            param=f"{where}.reasoning_content",
        )
    rest = {name: value for name, value in message.items() if name not in ("reasoning_content", "reasoning")}
    return rest | ({"reasoning": next(iter(found.values()))} if found else {})


def _part(part: Fields, where: str, capabilities: Capabilities) -> Fields:
    kind = part["type"]
    if kind not in capabilities.parts:
        raise _unsupported(f"{kind} parts", where)
    return {"type": kind, kind: part[kind]}


def _unsupported(what: str, param: str, elsewhere: str = "") -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported parameter: '{what}' is not supported with this model. Remove it and try again.{elsewhere}",
        param=param,
        code="unsupported_parameter",
    )


def tool_fields(fields: Fields, parses_tool_calls: bool) -> Fields:
    """`tools`, `tool_choice` and `parallel_tool_calls` for the engine; nothing where there are no tools.

    Raises InvalidRequest.
    """
    tools = fields.get("tools", [])
    choice = fields.get("tool_choice", "auto" if tools else "none")
    if not tools:
        if choice not in ("none", "auto"):
            raise InvalidRequest("'tool_choice' asks for a tool, but 'tools' is empty.", param="tool_choice")
        return {}
    for index, tool in enumerate(tools):
        _check_tool(tool, f"tools[{index}]")
    if isinstance(choice, dict):
        _check_choice(choice, {tool["function"]["name"] for tool in tools})
    if choice != "none" and not parses_tool_calls:
        raise InvalidRequest(
            "Unsupported parameter: 'tools' is supported only with 'tool_choice' \"none\" for this model: its engine "
            "has no parser for tool calls.",
            param="tools",
            code="unsupported_parameter",
        )
    parallel = {"parallel_tool_calls": fields["parallel_tool_calls"]} if "parallel_tool_calls" in fields else {}
    forced = choice not in ("none", "auto")
    return {"tools": [_held(tool) for tool in tools] if forced else tools, "tool_choice": choice, **parallel}


def _held(tool: Fields) -> Fields:
    """The tool, whose forced call the engine holds to its schema: without `strict` vLLM takes any text of the base."""
    function = {"parameters": {"type": "object", "properties": {}}, **tool["function"], "strict": True}
    return {**tool, "function": function}


def check_format(value: Fields) -> None:
    """Raises InvalidRequest for a `response_format` that is none of OpenAI's."""
    kind = value.get("type")
    if kind not in FORMATS:
        offered = " or ".join(repr(name) for name in FORMATS)
        raise InvalidRequest(
            f"Invalid value for 'type': expected {offered}.", param="response_format.type", code="invalid_value"
        )
    _check_keys(value, {"type", "json_schema"} if kind == "json_schema" else {"type"}, "response_format")
    if kind == "json_schema":
        schema = _object(value, "json_schema", "response_format")
        _check_keys(schema, {"name", "description", "schema", "strict"}, "response_format.json_schema")
        _text(schema, "name", "response_format.json_schema")
        _object(schema, "schema", "response_format.json_schema")


def check_calls(calls: list[Fields], where: str) -> None:
    """Raises InvalidRequest for a message's `tool_calls` that are none of OpenAI's."""
    for index, call in enumerate(calls):
        place = f"{where}[{index}]"
        _check_kind(call, place)
        _check_keys(call, {"id", "type", "function"}, place)
        _text(call, "id", place)
        function = _object(call, "function", place)
        _check_keys(function, {"name", "arguments"}, f"{place}.function")
        _text(function, "name", f"{place}.function")
        _text(function, "arguments", f"{place}.function")


def _check_tool(tool: Fields, where: str) -> None:
    _check_kind(tool, where)
    _check_keys(tool, {"type", "function"}, where)
    function = _object(tool, "function", where)
    _check_keys(function, {"name", "description", "parameters", "strict"}, f"{where}.function")
    _text(function, "name", f"{where}.function")


def _check_choice(choice: Fields, names: Collection[str]) -> None:
    _check_kind(choice, "tool_choice")
    _check_keys(choice, {"type", "function"}, "tool_choice")
    if _text(_object(choice, "function", "tool_choice"), "name", "tool_choice.function") not in names:
        raise InvalidRequest("'tool_choice' names a function that is not in 'tools'.", param="tool_choice")


def _check_kind(value: Fields, where: str) -> None:
    if value.get("type") != "function":
        raise InvalidRequest(
            f"Unsupported value: '{where}.type' supports only 'function' with this model.",
            param=f"{where}.type",
            code="unsupported_value",
        )


def _check_keys(value: Fields, known: Collection[str], where: str) -> None:
    for name in value.keys() - known:
        raise InvalidRequest(f"Unknown parameter: '{where}.{name}'.", param=f"{where}.{name}", code="unknown_parameter")


def _object(value: Fields, name: str, where: str) -> Fields:
    found = value.get(name)
    if not isinstance(found, dict):
        raise InvalidRequest(f"Invalid value for '{name}': expected an object.", param=f"{where}.{name}")
    return found


def _text(value: Fields, name: str, where: str) -> str:
    found = value.get(name)
    if not isinstance(found, str) or (not found and name != "arguments"):
        raise InvalidRequest(f"Invalid value for '{name}': expected a string.", param=f"{where}.{name}")
    return found
