"""Which fields of a request go on to an engine. Nothing that a client sent is ignored in silence: every field of
OpenAI's create schemas is one of

honoured   sent on, because the engine does it (`Capabilities`, one row per kind of engine);
harmless   accepted and kept here: it labels the request, or says how OpenAI should bill, cache or pad it;
neutral    accepted only with the values that ask for what happens anyway, such as `n` candidates for `n` answers;
refused    everything else, with a 400 that names the field.

The user's table is `openapi/inference.md`. Fields outside OpenAI's schemas never come here: the wire models forbid
them. Works on plain dicts, because that is what an engine gets; knows no wire model and no HTTP.
"""

from dataclasses import dataclass
from typing import Literal

from service.domain.errors import InvalidRequest
from service.domain.json import JsonObject
from service.gateway.tools import check_calls, check_format, tool_fields
from service.recipes.base import EngineKind, Serving

Endpoint = Literal["completions", "chat/completions"]
Fields = JsonObject


@dataclass(frozen=True)
class Capabilities:
    """The fields that one kind of engine honours: of both requests, of a message, and the types of a content part.

    `greedy_n`: whether it makes several answers without a temperature, where all of them are the same.
    """

    completions: frozenset[str]
    chat: frozenset[str]
    message: frozenset[str]
    parts: frozenset[str]
    greedy_n: bool


_SAMPLING = frozenset(
    {"max_tokens", "temperature", "top_p", "n", "stop", "seed", "presence_penalty", "frequency_penalty"}
    | {"logprobs", "stream", "stream_options"}
)
EMBEDDED = Capabilities(
    completions=_SAMPLING | {"prompt", "echo"},
    chat=_SAMPLING | {"messages", "max_completion_tokens", "top_logprobs"},
    message=frozenset({"role", "content", "name", "tool_call_id", "tool_calls", "function_call", "reasoning"}),
    parts=frozenset({"text"}),
    greedy_n=True,
)
TOOLS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})
VLLM = Capabilities(
    completions=EMBEDDED.completions | {"logit_bias"},
    chat=EMBEDDED.chat | {"logit_bias", "response_format"} | TOOLS,
    message=EMBEDDED.message - {"function_call"},
    parts=frozenset({"text"}),
    greedy_n=False,
)
CAPABILITIES: dict[EngineKind, Capabilities] = {"embedded": EMBEDDED, "vllm": VLLM}

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
    """What of `fields` goes to the engine; `fields` holds no nulls. Raises InvalidRequest for what it cannot do."""
    capabilities = CAPABILITIES[serving.engine]
    _check_together(fields, capabilities)
    honoured = capabilities.completions if endpoint == "completions" else capabilities.chat
    for name, value in fields.items():
        if name not in honoured | HARMLESS:
            _check_neutral(name, value, fields)
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
    """What is fine alone and contradicts another field."""
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


def _check_neutral(name: str, value: object, fields: Fields) -> None:
    values = (0, fields.get("n", 1)) if name == "best_of" else NEUTRAL.get(name, ())
    if value in values:
        return
    if values in ((), ([],), ({},)):
        raise _unsupported(name, name)
    offered = " or ".join(repr(value) for value in values)
    raise InvalidRequest(
        f"Unsupported value: '{name}' supports only {offered} with this model.", param=name, code="unsupported_value"
    )


def _message(message: Fields, where: str, capabilities: Capabilities) -> Fields:
    """A message as the engine gets it. What an SDK echoes back of an answer (`tool_calls: []`, nulls) is left out."""
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


def _unsupported(what: str, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported parameter: '{what}' is not supported with this model. Remove it and try again.",
        param=param,
        code="unsupported_parameter",
    )
