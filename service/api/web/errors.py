"""The only place that writes the error envelope: everything that goes wrong becomes OpenAI's `{"error": {...}}`.

Errors are raised anywhere below as `domain.errors`; what pydantic found in a request is said in
OpenAI's words: one message, one `param`, one `code`; of several findings only the first, as OpenAI does. Logs show
where something broke, never what a user sent.
"""

import math
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException

from service.api.web.addresses import where
from service.domain.errors import InvalidRequest, LuthierError, NotFound, QuotaExceeded, RateLimited, TooLarge
from service.domain.json import DoubledKey, NoNumber
from service.recipes.dialects import spelling_here
from service.recipes.fields import said

log = structlog.get_logger()
FRAMES = 8


NOT_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library "
    "correctly. The API expects a JSON payload, but what was sent was not valid JSON.)"
)
NO_OBJECT = "The body of your request must be a JSON object, sent with the header 'Content-Type: application/json'."
SHOWN_CHARACTERS = 100

Finding = ErrorDetails

_EXPECTED = {
    "string": "a string", "int": "an integer", "float": "a number", "bool": "a boolean", "list": "an array",
    "dict": "an object", "model_attributes": "an object", "model": "an object", "none_required": "null",
}  # fmt: skip
_LENGTHS = {
    ("string", "max_length"): (
        "string_above_max_length",
        "string too long. Expected a string with maximum length {}, but got a string with length {}",
    ),
    ("string", "min_length"): (
        "string_below_min_length",
        "string too short. Expected a string with minimum length {}, but got a string with length {}",
    ),
    ("array", "max_length"): (
        "array_above_max_length",
        "array too long. Expected an array with maximum length {}, but got an array with length {}",
    ),
    ("array", "min_length"): (
        "array_below_min_length",
        "array too short. Expected an array with minimum length {}, but got an array with length {}",
    ),
    ("object", "max_length"): (
        "object_above_max_properties",
        "too many properties. Expected an object with at most {} properties, but got an object with {} properties",
    ),
    ("object", "min_length"): (
        "object_below_min_properties",
        "too few properties. Expected an object with at least {} properties, but got an object with {} properties",
    ),
}
_SIZED: dict[type, str] = {str: "string", list: "array"}
_GOT: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    list: "an array",
}


class MethodNotAllowed(InvalidRequest):
    """The path exists, but not for this method."""

    status = 405
    default_code = "method_not_supported"


def envelope(error: LuthierError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """`error` as an HTTP response."""
    body = {"message": clean(error.message), "type": error.type, "param": clean(error.param), "code": error.code}
    return JSONResponse({"error": body}, status_code=error.status, headers=headers)


def unexpected(error: Exception) -> JSONResponse:
    """The response to an error in the service, which is logged as its type and place."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    places = [f"{frame.filename}:{frame.lineno}:{frame.name}" for frame in frames]
    log.error("request.crashed", error=type(error).__name__, places=places)
    id = structlog.contextvars.get_contextvars().get("request_id", "the x-request-id")
    return envelope(LuthierError(f"The server had an error while processing your request. Its log names it by {id}."))


def clean(text: str | None) -> str | None:
    """`text` without invalid Unicode: half a surrogate pair that a client sent cannot be sent back."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")


def install(app: FastAPI) -> None:
    """Makes `app` respond to every kind of error with the envelope."""
    app.add_exception_handler(LuthierError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)


async def _known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LuthierError)
    return refusal(error)


def refusal(error: LuthierError) -> JSONResponse:
    """The response to a request that ended with this error."""
    return envelope(error, _retry_headers(error))


def _retry_headers(error: LuthierError) -> dict[str, str]:
    """When to retry a request that was over a limit: in the two headers that the SDKs read."""
    if isinstance(error, QuotaExceeded):
        return {"x-should-retry": "false"}
    if not isinstance(error, RateLimited):
        return {}
    if not error.may_retry:
        return {"x-should-retry": "false"}
    if error.retry_after_seconds is None:
        return {}
    return {
        "Retry-After": str(max(1, math.ceil(error.retry_after_seconds))),
        "retry-after-ms": str(round(error.retry_after_seconds * 1000)),
    }


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return envelope(worded(error))


async def _refused(request: Request, error: Exception) -> JSONResponse:
    """What the framework rejects before any code of ours runs."""
    assert isinstance(error, HTTPException)
    return envelope(_translated(request, error), error.headers)


def _translated(request: Request, error: HTTPException) -> LuthierError:
    method, path = request.method, request.url.path
    match error.status_code:
        case 404:
            return NotFound(f"Invalid URL ({method} {path}){where(path)}")
        case 405:
            hint = "(HINT: Perhaps you meant to use a different HTTP method?)"
            return MethodNotAllowed(f"Not allowed to {method} on {path} {hint}")
        case 413:
            return TooLarge(error.detail)
        case 400 if isinstance(error.__cause__, ValueError):
            return unread(error.__cause__)
        case _:
            return InvalidRequest(NOT_JSON)


def unread(error: Exception) -> InvalidRequest:
    """The error for a body that the reader of JSON has refused."""
    match error:
        case DoubledKey():
            return InvalidRequest(
                f"'{error.path}' is in the body of your request twice. Send it once.", param=error.path
            )
        case NoNumber():
            return InvalidRequest(f"The body of your request has the value {error.word}, which JSON does not have.")
    return InvalidRequest(NOT_JSON)


def finding(findings: Sequence[Finding], body: object) -> InvalidRequest:
    """The first of what pydantic found in a JSON body as an error for the client."""
    return _first([{**one, "loc": ("body", *one["loc"])} for one in findings], body)


def worded(error: RequestValidationError) -> InvalidRequest:
    """The first finding as an error for the client."""
    return _first(error.errors(), error.body)


def _first(findings: Sequence[Finding], body: Any) -> InvalidRequest:
    first = findings[0]
    param = _param(first, body)
    if first["type"] == "json_invalid":
        return InvalidRequest(NOT_JSON)
    if param is None:
        return _about_all(first, body)
    same = [finding for finding in findings if _param(finding, body) == param]
    return _about(param, same)


def _about_all(finding: Finding, body: Any) -> InvalidRequest:
    """The error for what is wrong with the body and with no field of it."""
    if not isinstance(body, dict):
        return InvalidRequest(NO_OBJECT)
    if finding["type"] == "string_unicode":
        return InvalidRequest("The body of your request has a key that holds half a surrogate pair, which is no text.")
    return InvalidRequest(f"Invalid request: {said(finding)}.")


def _param(finding: Finding, body: Any) -> str | None:
    """`metadata.team` or `messages[0].role`; None for the body as a whole. Pydantic's names of members are left out."""
    place, *path = finding["loc"]
    if place != "body":
        return ".".join(str(part) for part in path)
    text: str | None = None
    value = body
    for number, part in enumerate(path):
        missing = finding["type"] == "missing" and number == len(path) - 1
        if isinstance(part, int) and isinstance(value, list) and part < len(value):
            text, value = f"{text or ''}[{part}]", value[part]
        elif isinstance(value, dict) and (part in value or missing):
            text, value = str(part) if text is None else f"{text}.{part}", value.get(part)
    return text


def _about(param: str, findings: Sequence[Finding]) -> InvalidRequest:
    """The error for the findings of one field: several are a union's, of which the closest member's is reported."""
    kinds = [_expected(finding) for finding in findings]
    if len(findings) > 1 and all(kinds):
        expected = " or ".join(dict.fromkeys(kind for kind in kinds if kind))
        return _wrong_type(param, expected, findings[0]["input"])
    chosen = next((finding for finding, kind in zip(findings, kinds, strict=True) if not kind), findings[0])
    return _single(param, chosen)


def _expected(finding: Finding) -> str | None:
    """What was expected, if the finding is about the type or the choice of value."""
    if finding["type"] == "literal_error":
        return str(finding["ctx"]["expected"])
    name, _, end = finding["type"].rpartition("_")
    return _EXPECTED.get(name) if end in ("type", "parsing") or finding["type"] == "none_required" else None


def _single(param: str, finding: Finding) -> InvalidRequest:
    kind, value, context = finding["type"], finding["input"], finding.get("ctx", {})
    match kind:
        case "missing":
            return _error(param, "missing_required_parameter", f"Missing required parameter: '{param}'.")
        case "extra_forbidden":
            return _error(param, "unknown_parameter", f"Unknown parameter: '{param}'.{spelling_here(param)}")
        case "union_tag_not_found":
            return _single(f"{param}.{_tag_name(context)}", {**finding, "type": "missing"})
        case "union_tag_invalid":
            given = _shown(context["tag"])
            message = f"Invalid value: {given}. Supported values are: {context['expected_tags']}."
            return _error(f"{param}.{_tag_name(context)}", "invalid_value", message)
        case "literal_error":
            supported = context["expected"].replace(" or ", " and ")
            return _error(param, "invalid_value", f"Invalid value: {_shown(value)}. Supported values are: {supported}.")
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            return _out_of_range(param, kind, value, context)
        case "string_too_short" | "string_too_long" | "too_short" | "too_long":
            return _wrong_length(param, value, context)
        case "finite_number":
            return _error(param, "invalid_value", f"Invalid '{param}': expected a finite number.")
        case "string_unicode":
            return _error(param, "invalid_value", f"Invalid '{param}': the text holds half a surrogate pair.")
        case "string_pattern_mismatch":
            wanted = f"Expected a string that matches the pattern '{context['pattern']}'."
            return _error(param, "invalid_value", f"Invalid '{param}': string does not match pattern. {wanted}")
    expected = _expected(finding)
    if expected is not None:
        return _wrong_type(param, expected, value)
    return _error(param, "invalid_value", f"Invalid '{param}': {said(finding)}.")


def _tag_name(context: Mapping[str, Any]) -> str:
    """The field by which an object says of which kind it is; pydantic has it in quotes."""
    return str(context["discriminator"]).strip("'")


def _wrong_type(param: str, expected: str, value: Any) -> InvalidRequest:
    got = "null" if value is None else _GOT.get(type(value), "an object")
    return _error(param, "invalid_type", f"Invalid type for '{param}': expected {expected}, but got {got} instead.")


def _out_of_range(param: str, kind: str, value: Any, context: Mapping[str, Any]) -> InvalidRequest:
    bound = next(context[name] for name in ("ge", "gt", "le", "lt") if name in context)
    sign = {"greater_than_equal": ">=", "greater_than": ">", "less_than_equal": "<=", "less_than": "<"}[kind]
    number = "integer" if isinstance(bound, int) and not isinstance(value, float) else "decimal"
    side, code = ("below minimum", "below_min") if sign.startswith(">") else ("above maximum", "above_max")
    message = (
        f"Invalid '{param}': {number} {side} value. Expected a value {sign} {bound}, but got {_shown(value)} instead."
    )
    return _error(param, f"{number}_{code}_value", message)


def _wrong_length(param: str, value: Any, context: Mapping[str, Any]) -> InvalidRequest:
    bound = "max_length" if "max_length" in context else "min_length"
    kind = _SIZED.get(type(value), "object")
    code, wording = _LENGTHS[kind, bound]
    return _error(param, code, f"Invalid '{param}': {wording.format(context[bound], len(value))} instead.")


def _shown(value: Any) -> str:
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _error(param: str, code: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code=code)
