"""The operations of a document as methods of classes.

A path says where an operation is and its id what it is called: POST /v1/fine_tuning/jobs/{id}/cancel,
`cancelFineTuningJob`, is `fine_tuning.jobs.cancel(id)`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Optional

from clients.python.make_sdk.document import CLOSE, OPEN, Document, DocumentError, Field, Schema, docstring
from clients.python.make_sdk.naming import camel, identifier, words

HTTP_METHODS = ("get", "post", "put", "patch", "delete")
CRUD = {"create", "list", "retrieve", "update", "delete", "add"}  # they act on what the path names

Result = Literal["object", "page", "json", "stream", "download", "text", "nothing"]


@dataclass(frozen=True)
class Method:
    """One operation. `query`, `headers`, `body_names`, `form` and `files` pair names on the wire with code."""

    name: str
    id: str
    verb: str
    path_code: str
    doc: str
    positional: Sequence[Field]
    required: Sequence[Field]
    optional: Sequence[Field]
    result: Result
    kind: str
    query: Sequence[tuple[str, str]] = ()
    headers: Sequence[tuple[str, str]] = ()
    body_names: Optional[Sequence[tuple[str, str]]] = None
    whole_body: bool = False
    form: Optional[Sequence[tuple[str, str]]] = None
    files: Sequence[tuple[str, str]] = ()
    marked: bool = True  # a stream that ends with [DONE]

    def returns(self, is_async: bool) -> str:
        prefix = "Async" if is_async else ""
        kind = f"models.{self.kind}" if self.kind else "JsonObject"
        types: dict[Result, str] = {
            "object": kind,
            "page": f"{'AsyncPages' if is_async else 'Page'}[{kind}]",
            "stream": f"{prefix}Stream[{kind}]",
            "download": f"{prefix}Download",
            "json": "Any",
            "text": "str",
            "nothing": "None",
        }
        return types[self.result]


@dataclass
class Room:
    """A class of operations, for one prefix of paths."""

    name: str
    doc: str
    children: list[tuple[str, str]] = field(default_factory=list)
    methods: list[Method] = field(default_factory=list)


def operations(document: Document) -> list[Room]:
    """The classes of operations, those below first; the last is `Api`, the whole."""
    rooms: dict[tuple[str, ...], Room] = {(): Room("Api", "Every operation of the service.")}
    for path, item in document.openapi["paths"].items():
        for verb in HTTP_METHODS:
            if verb in item:
                place, name = placed(path, item[verb]["operationId"])
                room = _room(rooms, place)
                shared = [document.resolved(one) for one in item.get("parameters", ())]
                room.methods += _methods(document, room, path, verb, item[verb], name, shared)
    for room in rooms.values():
        _resolve_collisions(room)
    return [rooms[place] for place in sorted(rooms, key=lambda place: (-len(place), place))]


def placed(path: str, operation_id: str) -> tuple[tuple[str, ...], str]:
    """Where an operation belongs and what it is called there."""
    parts = [part for part in path.strip("/").split("/") if part]
    parts = parts[1:] if parts and re.fullmatch(r"v\d+", parts[0]) else parts
    static = [identifier("_".join(words(part))) for part in parts if not part.startswith("{")]
    name = words(operation_id)[0]
    below_object = len(parts) > 1 and parts[-2].startswith("{") and not parts[-1].startswith("{")
    if static and (static[-1] == name or (below_object and name not in CRUD)):
        static.pop()  # an action on the object before it, not a list of its own
    return tuple(static), identifier(name)


def _room(rooms: dict[tuple[str, ...], Room], place: tuple[str, ...]) -> Room:
    if place not in rooms:
        above = _room(rooms, place[:-1])
        rooms[place] = Room(camel(" ".join(place).replace("_", " ")), f"The operations of `{'.'.join(place)}`.")
        above.children.append((place[-1], rooms[place].name))
    return rooms[place]


def _resolve_collisions(room: Room) -> None:
    """Two operations of one name, or an operation named like what is below: these get their whole id as a name."""
    taken = [one.name for one in room.methods] + [attribute for attribute, _ in room.children]
    room.methods = [
        replace(one, name="_".join(words(one.id)) + ("_stream" if one.result == "stream" else ""))
        if taken.count(one.name) > 1
        else one
        for one in room.methods
    ]
    names = [one.name for one in room.methods]
    if len(set(names)) < len(names):
        raise DocumentError(f"Two operations of {room.name} have one operationId.")


def _methods(
    document: Document, room: Room, path: str, verb: str, operation: Schema, name: str, shared: Sequence[Schema]
) -> Iterator[Method]:
    """The methods of one operation: two, if it responds with an object or with a stream."""
    results = _results(document, operation)
    if not results:
        raise DocumentError(f"{operation['operationId']}: no response with a status below 300.")
    for result, kind in results:
        both = len(results) > 1
        called = "stream" if both and result == "stream" else name
        yield _method(document, path, verb, operation, called, result, kind, both, shared)


def _results(document: Document, operation: Schema) -> list[tuple[Result, str]]:
    found: list[tuple[Result, str]] = []
    responses = {status: document.resolved(one) for status, one in operation["responses"].items()}
    good = [one for status, one in sorted(responses.items()) if status.startswith("2")]
    for media, content in (good[0].get("content", {}) if good else {}).items():
        if media.startswith("application/json"):
            found.append(_json_result(document, operation["operationId"], content.get("schema", {})))
        elif media == "text/event-stream":
            found.append(("stream", _event_kind(document, content)))
        elif media.startswith("text/"):
            found.append(("text", ""))
        else:
            found.append(("download", ""))
    if good and not found:
        return [("nothing", "")]
    if sum(result != "stream" for result, _ in found) > 1:
        raise DocumentError(f"{operation['operationId']}: more than one kind of response beside a stream.")
    return found


def _json_result(document: Document, id: str, schema: Schema) -> tuple[Result, str]:
    whole = document.resolved(schema)
    listed = whole.get("properties", {})
    # What an engine computed is no page, though OpenAI calls it a list: it has a usage beside its data.
    is_list = listed.get("object", {}).get("const") == "list" and "usage" not in listed
    items = listed.get("data", {}).get("items", {}) if is_list else {}
    if items:
        kind = document.type_of(items, f"{id} item", taken=False)
    else:
        kind = document.type_of(schema, f"{id} response", taken=False)
    if not kind.startswith(OPEN):
        return "json", ""
    return ("page" if items else "object"), kind.strip(OPEN + CLOSE)


def _stream_description(document: Document, operation: Schema) -> str:
    """What the document says of the events of an operation."""
    responses = [document.resolved(one) for one in operation["responses"].values()]
    streams = [
        one["content"]["text/event-stream"] for one in responses if "text/event-stream" in one.get("content", {})
    ]
    return " ".join(str(one.get("schema", {}).get("description", "")) for one in streams)


def _event_kind(document: Document, content: Schema) -> str:
    """What the data of an event is: the description names a schema, or the `object` of one, in angle brackets."""
    said = re.search(r"data: <([\w.]+)>", content.get("schema", {}).get("description", ""))
    for name, schema in document.schemas.items():
        word = schema.get("properties", {}).get("object", {}).get("const")
        if said and said[1] in (name, word):
            return document.type_of({"$ref": f"#/components/schemas/{name}"}, name, taken=False).strip(OPEN + CLOSE)
    return ""


def _method(
    document: Document,
    path: str,
    verb: str,
    operation: Schema,
    name: str,
    result: Result,
    kind: str,
    both: bool,
    shared: Sequence[Schema],
) -> Method:
    id = operation["operationId"]
    fixed = "True" if result == "stream" else None  # of `stream`, which chooses between two methods
    fields: list[Field] = []
    places: dict[str, list[tuple[str, str]]] = {"path": [], "query": [], "header": []}
    for one in [*shared, *(document.resolved(one) for one in operation.get("parameters", ()))]:
        if one["name"] == "stream" and both:
            places[one["in"]] += [("stream", fixed)] if fixed else []
            continue
        type_ = document.type_of(one.get("schema", {}), f"{id} {one['name']}", taken=True)
        made = Field(
            identifier(one["name"]), one["name"], type_, one.get("required", False), one.get("description", "")
        )
        places[one["in"]].append((one["name"], made.name))
        if one["in"] != "path":
            fields.append(made)
    positional = [_path_field(path, one) for one in re.findall(r"{(\w+)}", path)]
    body = _body(document, operation, id)
    if both and any(one.json == "stream" for one in body.fields):
        body = body.streaming(fixed)
    fields += body.fields
    order = [*positional, *[one for one in fields if one.required], *[one for one in fields if not one.required]]
    return Method(
        name=name,
        id=id,
        verb=verb.upper(),
        path_code=_path_code(path),
        doc=docstring(operation.get("description", ""), f"{operation.get('summary', id)}.", 8, order),
        positional=positional,
        required=[one for one in fields if one.required],
        optional=[one for one in fields if not one.required],
        result=result,
        kind=kind,
        query=places["query"],
        headers=places["header"],
        body_names=body.names,
        whole_body=body.whole,
        form=body.form,
        files=body.files,
        marked="[DONE]" in _stream_description(document, operation),
    )


@dataclass(frozen=True)
class Body:
    """The fields of a request's body, and how they are sent."""

    fields: Sequence[Field] = ()
    names: Optional[Sequence[tuple[str, str]]] = None
    whole: bool = False
    form: Optional[Sequence[tuple[str, str]]] = None
    files: Sequence[tuple[str, str]] = ()

    def streaming(self, fixed: Optional[str]) -> "Body":
        """Without the parameter `stream`; it is sent with the fixed value, or not at all."""
        names = [pair for pair in self.names or () if pair[0] != "stream"]
        return replace(
            self,
            fields=[one for one in self.fields if one.json != "stream"],
            names=[*names, ("stream", fixed)] if fixed else names,
        )


def _body(document: Document, operation: Schema, id: str) -> Body:
    if "requestBody" not in operation:
        return Body()
    request = document.resolved(operation["requestBody"])
    media, content = next(iter(request["content"].items()))
    schema = document.resolved(content["schema"])
    required = set(schema.get("required", ())) if request.get("required", False) else set()
    if media == "application/json" and not schema.get("properties"):
        kind = document.type_of(schema, f"{id} body", taken=True)
        return Body([Field("body", "body", kind, True)], [], whole=True)
    if media not in ("application/json", "multipart/form-data"):
        raise DocumentError(f"{id}: a body of {media} is not supported.")
    fields, files = [], []
    for name, one in schema["properties"].items():
        binary = one.get("format") == "binary"
        kind = "FileInput" if binary else document.type_of(one, f"{id} {name}", taken=True)
        fields.append(Field(identifier(name), name, kind, name in required, one.get("description", "")))
        files += [name] if binary else []
    pairs = [(one.json, one.name) for one in fields]
    if media == "application/json":
        return Body(fields, pairs)
    return Body(
        fields,
        form=[pair for pair in pairs if pair[0] not in files],
        files=[pair for pair in pairs if pair[0] in files],
    )


def _path_field(path: str, name: str) -> Field:
    return Field(identifier(name), name, "str", True)


def _path_code(path: str) -> str:
    names = re.findall(r"{(\w+)}", path)
    if not names:
        return repr(path)
    return f"filled({path!r}, {', '.join(f'{name}={identifier(name)}' for name in names)})"
