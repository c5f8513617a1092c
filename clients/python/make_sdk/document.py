"""An OpenAPI document: its schemas as types of Python, and the classes that these types need."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clients.python.make_sdk.naming import camel, identifier

OPEN, CLOSE = "\u27e8", "\u27e9"  # around the name of a model in a type, until it is known where the type is written
WIDTH = 110

Schema = Mapping[str, Any]


class DocumentError(Exception):
    """The document says something that this program cannot express."""


@dataclass(frozen=True)
class Field:
    """A field of an object, or a parameter of a method: its name here and in JSON."""

    name: str
    json: str
    type: str
    required: bool
    doc: str = ""
    default: str = ""


@dataclass(frozen=True)
class Shape:
    """A dataclass or a typed dict."""

    name: str
    doc: str
    fields: Sequence[Field]

    @property
    def required(self) -> list[Field]:
        return [one for one in self.fields if one.required]

    @property
    def optional(self) -> list[Field]:
        return [one for one in self.fields if not one.required]

    @property
    def functional(self) -> bool:
        return any(one.name != one.json for one in self.fields)


class Document:
    """An OpenAPI document, and the shapes that were found to be used in it."""

    def __init__(self, openapi: Schema) -> None:
        self.openapi = openapi
        self.schemas: dict[str, Schema] = dict(openapi.get("components", {}).get("schemas", {}))
        self.sent: dict[str, None] = {}  # names of schemas in responses, in the order of their discovery
        self.taken: dict[str, None] = {}  # and in requests

    def resolved(self, node: Schema) -> Schema:
        """`node`, or what it refers to."""
        while "$ref" in node:
            found: Any = self.openapi
            for part in str(node["$ref"]).removeprefix("#/").split("/"):
                found = found[part.replace("~1", "/").replace("~0", "~")]
            node = found
        return node

    def type_of(self, schema: Schema, owner: str, *, taken: bool) -> str:
        """The Python type of a schema; `owner` names it if it is an object without a name."""
        if "$ref" in schema:
            return self._named(str(schema["$ref"]).rpartition("/")[2], taken)
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return _union([self.type_of(one, owner, taken=taken) for one in schema[union]])
        if len(schema.get("allOf", ())) == 1:
            return self.type_of(schema["allOf"][0], owner, taken=taken)
        if "const" in schema or "enum" in schema:
            return _literal([schema["const"]] if "const" in schema else schema["enum"])
        kind = schema.get("type")
        if isinstance(kind, list):
            return _union([self.type_of({**schema, "type": one}, owner, taken=taken) for one in kind])
        if kind == "array":
            item = self.type_of(schema.get("items", {}), owner, taken=taken)
            return f"Sequence[{item}]" if taken else f"list[{item}]"
        if kind == "object":
            return self._object(schema, owner, taken)
        simple = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
        return simple.get(str(kind), "Any")

    def _object(self, schema: Schema, owner: str, taken: bool) -> str:
        if schema.get("properties"):
            name = camel(owner)
            self.schemas.setdefault(name, schema)
            return self._named(name, taken)
        values = list(schema.get("patternProperties", {}).values())
        if isinstance(schema.get("additionalProperties"), Mapping):
            values.append(schema["additionalProperties"])
        value = _union([self.type_of(one, owner, taken=taken) for one in values]) if values else "Any"
        return f"Mapping[str, {value}]" if taken else f"dict[str, {value}]"

    def _named(self, name: str, taken: bool) -> str:
        """The type of a schema by name; the schema becomes a class if it is an object."""
        schema = self.schemas[name]
        if not schema.get("properties"):
            return self.type_of(schema, name, taken=taken)
        (self.taken if taken else self.sent)[name] = None
        return f"{OPEN}{self.class_name(name, taken)}{CLOSE}"

    def class_name(self, name: str, taken: bool) -> str:
        return camel(name) + ("Param" if taken else "")

    def shapes(self, *, taken: bool) -> list[Shape]:
        """The classes, by name. Making one may discover others."""
        made: dict[str, Shape] = {}
        names = self.taken if taken else self.sent
        while missing := [name for name in names if name not in made]:
            for name in missing:
                made[name] = self._shape(name, taken)
        return sorted(made.values(), key=lambda shape: shape.name)

    def _shape(self, name: str, taken: bool) -> Shape:
        schema = self.schemas[name]
        required = set(schema.get("required", ()))
        fields = []
        for json_name, one in schema["properties"].items():
            kind = self.type_of(one, f"{name} {json_name}", taken=taken)
            default = "" if taken else self._default(one, json_name in required, kind, json_name)
            if default.endswith("None") and not taken and not kind.startswith(("Optional[", "None", "Any")):
                kind = f"Optional[{kind}]"
            needed = json_name in required if taken else not default
            plain = kind.replace(OPEN, "").replace(CLOSE, "")
            fields.append(Field(identifier(json_name), json_name, plain, needed, default=default))
        fields.sort(key=lambda one: not one.required)
        return Shape(self.class_name(name, taken), docstring(schema.get("description", ""), f"`{name}`.", 4), fields)

    def _default(self, schema: Schema, required: bool, kind: str, json_name: str) -> str:
        """How a field of a response is written behind its type: what it is if the service leaves it out."""
        value = schema.get("default")
        if required:
            code = None
        elif isinstance(value, (str, int, float, bool)):
            code = repr(value)
        else:
            code = "None"
        if identifier(json_name) == json_name:
            return "" if code is None else f" = {code}"
        metadata = f"metadata={{'json': {json_name!r}}}"
        return f" = field({metadata})" if code is None else f" = field(default={code}, {metadata})"


def docstring(text: str, otherwise: str, indent: int, params: Sequence[Field] = ()) -> str:
    """Prose as the inside of a docstring, with a line for each parameter that is explained."""
    paragraphs = [" ".join(part.split()) for part in (text or otherwise).split("\n\n")]
    lines = [line for part in paragraphs for line in [*textwrap.wrap(part, WIDTH - indent, break_long_words=False), ""]]
    explained = [one for one in params if one.doc]
    for one in explained:
        said = f"{one.name}: {' '.join(one.doc.split())}"
        lines += textwrap.wrap(said, WIDTH - indent, subsequent_indent="    ", break_long_words=False)
    while lines and not lines[-1]:
        lines.pop()
    pad = " " * indent
    body = "\n".join(f"{pad}{line}" if line and number else line for number, line in enumerate(lines))
    body = body.replace("\\", "\\\\").replace('"""', "'''")
    if len(lines) > 1:
        return f"{body}\n{pad}"
    return body + (" " if body.endswith('"') else "")


def _union(types: Sequence[str]) -> str:
    flat = list(dict.fromkeys(types))
    others = [one for one in flat if one != "None"]
    inner = others[0] if len(others) == 1 else f"Union[{', '.join(others)}]" if others else "None"
    return f"Optional[{inner}]" if others and len(others) < len(flat) else inner


def _literal(values: Sequence[Any]) -> str:
    plain = [value for value in values if value is not None]
    if not all(isinstance(value, (str, int)) for value in plain):  # a Literal holds no other values
        kind = "float" if all(isinstance(value, (int, float)) for value in plain) else "Any"
        return _union([kind, "None"]) if len(plain) < len(values) else kind
    written = f"Literal[{', '.join(json.dumps(value) if isinstance(value, str) else repr(value) for value in plain)}]"
    return _union([written, "None"]) if len(plain) < len(values) else written
