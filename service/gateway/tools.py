"""Tools and shaped answers on their way to an engine that has them: only OpenAI's own forms pass.

Engines know more forms than OpenAI (vLLM's `structural_tag`), which would be doors past the wire models. Works on plain
dicts, as `service.gateway.fields` does, which calls this; what vLLM can do without a parser for a base's tool calls
was tried with 0.32: only `tool_choice: "none"`.
"""

from collections.abc import Collection

from service.domain.errors import InvalidRequest
from service.domain.json import JsonObject

Fields = JsonObject

FORMATS = ("text", "json_object", "json_schema")


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
    return {"tools": tools, "tool_choice": choice, **parallel}


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
