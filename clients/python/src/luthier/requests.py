"""A request as the generated operations describe it, and what both transports do with it before they send it."""

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Optional, Union
from urllib.parse import quote

import httpx

from luthier.errors import InvalidArgumentError
from luthier.records import JsonObject

FileContent = Union[bytes, IO[bytes]]
FileInput = Union[FileContent, "os.PathLike[str]", tuple[str, FileContent]]


class Omit:
    """The type of `OMIT`."""

    def __repr__(self) -> str:
        return "OMIT"


OMIT = Omit()  # a parameter that is not sent; None is sent as null


@dataclass(frozen=True)
class Request:
    """What one operation sends. Values that are OMIT are left out."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    body: Optional[Mapping[str, Any]] = None  # JSON
    form: Optional[Mapping[str, Any]] = None  # multipart: the fields that are not files
    files: Mapping[str, Union[FileInput, Omit]] = field(default_factory=dict)
    extra_body: Optional[Mapping[str, Any]] = None
    extra_headers: Optional[Mapping[str, str]] = None
    timeout_seconds: Optional[float] = None


def filled(template: str, **values: str) -> str:
    """A path with its ids. Raises InvalidArgumentError for an id that would lead to another path."""
    for name, value in values.items():
        if value in ("", ".", ".."):
            raise InvalidArgumentError(f"{name} must be the id of an object, not '{value}'.")
        template = template.replace(f"{{{name}}}", quote(value, safe=":"))
    return template


def sent(values: Mapping[str, Any]) -> JsonObject:
    """The values that are sent."""
    return {name: value for name, value in values.items() if not isinstance(value, Omit)}


def idempotency_key() -> str:
    """One per request, the same for each of its tries."""
    return f"luthier-retry-{uuid.uuid4()}"


def build(client: Union[httpx.Client, httpx.AsyncClient], request: Request, url: str, key: str) -> httpx.Request:
    """A request of httpx, made again for each try; files are sent whole. Raises InvalidArgumentError."""
    headers = {name: str(value) for name, value in sent(request.headers).items() if value is not None}
    if request.method != "GET":
        headers["Idempotency-Key"] = key
    headers.update(request.extra_headers or {})
    options: JsonObject = {}
    if request.timeout_seconds is not None:
        options["timeout"] = request.timeout_seconds
    if request.body is not None:
        options["content"] = _json({**sent(request.body), **(request.extra_body or {})})
        headers.setdefault("Content-Type", "application/json")
    if request.form is not None:
        words = {name: _word(value) for name, value in sent(request.form).items() if value is not None}
        files = {name: _file(name, value) for name, value in sent(request.files).items()}
        # httpx makes a multipart form only of files: without any, the fields are sent as files without a name
        options["data"] = words if files else {}
        options["files"] = files or {name: (None, word) for name, word in words.items()}
    return client.build_request(request.method, url, params=_query(request.query), headers=headers, **options)


def opened(request: Request) -> Request:
    """`request` with its paths opened. `closed` closes them."""
    if not any(isinstance(value, os.PathLike) for value in request.files.values()):
        return request
    files = {name: _opened(value) for name, value in sent(request.files).items()}
    return Request(**{**vars(request), "files": files})


def close(before: Request, after: Request) -> None:
    """Closes what `opened` opened."""
    for name, value in before.files.items():
        if isinstance(value, os.PathLike):
            content = _content(sent(after.files)[name])
            if not isinstance(content, bytes):
                content.close()


def _opened(value: FileInput) -> FileInput:
    if not isinstance(value, os.PathLike):
        return value
    path = Path(value)
    return path.name, path.open("rb")


def _content(value: FileInput) -> FileContent:
    if isinstance(value, tuple):
        return value[1]
    assert not isinstance(value, os.PathLike), "paths are opened first"
    return value


def _file(field: str, value: FileInput) -> tuple[str, FileContent]:
    content = _content(value)
    if not isinstance(content, bytes) and not content.seekable():
        raise InvalidArgumentError(
            f"'{field}' is a pipe, whose length is not known before it is sent. Write it to a file first."
        )
    if isinstance(value, tuple):
        return value
    return ("upload" if isinstance(content, bytes) else Path(str(content.name)).name), content


def _json(body: JsonObject) -> bytes:
    """Raises InvalidArgumentError for what JSON cannot hold, such as NaN."""
    try:
        return json.dumps(body, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"The request cannot be written as JSON: {error}.") from None


def _query(values: Mapping[str, Any]) -> httpx.QueryParams:
    pairs: list[tuple[str, str]] = []
    for name, value in sent(values).items():
        if isinstance(value, Mapping):
            pairs += [(f"{name}[{key}]", _word(one)) for key, one in value.items()]
        elif isinstance(value, (list, tuple)):
            pairs += [(name, _word(one)) for one in value]
        elif value is not None:
            pairs.append((name, _word(value)))
    return httpx.QueryParams(tuple(pairs))


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
