"""The catalogue's text with one entry more or less: every comment and every other entry stays as it is written.

Works on the text, since libraries that write TOML move comments between the entries that they stand between; what comes
out is read again, and refused unless it means what was asked for. Who writes the file is `service.commands.add_base`.
"""

import json
import re
import tomllib
from collections.abc import Iterable
from typing import Any

from service.recipes.base import Base
from service.recipes.catalogue import CatalogueError

HEAD = "# The base models of this installation; service/bases.toml of Luthier explains every field.\n"
_HEADER = re.compile(r"^\s*\[\[\s*base\s*\]\]")


def first_text(bases: Iterable[Base]) -> str:
    """A new catalogue that lists `bases`."""
    return "\n".join([HEAD, *map(_entry, bases)])


def with_base(text: str, base: Base) -> str:
    """The catalogue's text with `base` at its end. Raises CatalogueError."""
    found = _entries(text)
    break_before = "" if not text or text.endswith("\n") else "\n"
    changed = f"{text}{break_before}\n{_entry(base)}"
    return _meaning(changed, [*found, tomllib.loads(_entry(base))["base"][0]])


def without_base(text: str, id: str) -> str:
    """The catalogue's text without the base of that id. Raises CatalogueError for an unknown one, and for the last."""
    found = _entries(text)
    places = [place for place, entry in enumerate(found) if entry.get("id") == id]
    if not places:
        raise CatalogueError(f"The catalogue has no base '{id}'; it has: {', '.join(str(e.get('id')) for e in found)}.")
    if len(found) == 1:
        raise CatalogueError(f"'{id}' is the catalogue's only base: add another one first.")
    (place, *_), lines = places, text.splitlines(keepends=True)
    headers = [number for number, line in enumerate(lines) if _HEADER.match(line)]
    if len(headers) != len(found):
        raise CatalogueError("The catalogue writes its bases in another form than [[base]]: change it by hand.")
    end = headers[place + 1] if place + 1 < len(headers) else len(lines)
    while place + 1 < len(headers) and lines[end - 1].lstrip().startswith("#"):  # what is written about the next base
        end -= 1
    return _meaning("".join(lines[: headers[place]] + lines[end:]), found[:place] + found[place + 1 :])


def _entries(text: str) -> list[dict[str, Any]]:
    try:
        found = tomllib.loads(text).get("base", [])
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(f"The catalogue cannot be read: {error}") from error
    return found if isinstance(found, list) else []


def _meaning(text: str, wanted: list[dict[str, Any]]) -> str:
    """The text, if it lists exactly the wanted entries."""
    try:
        found = tomllib.loads(text).get("base")
    except tomllib.TOMLDecodeError:
        found = None
    if found != wanted:
        raise CatalogueError("The catalogue writes its bases in another form than [[base]]: change it by hand.")
    return text


def _entry(base: Base) -> str:
    """The entry, without what is the default of `Base`."""
    serving = base.serving
    served = {"tunings": sorted(serving.tunings), "max_rank": serving.max_rank}
    lines = {
        "id": _text(base.id),
        "aliases": _value(list(base.aliases)) if base.aliases else "",
        "kind": _text(base.kind) if base.kind != "causal" else "",
        "source": _text(base.source),
        "revision": _text(base.revision) if base.revision else "",
        "dtype": _text(base.dtype),
        "quantization": _text(base.quantization) if base.quantization else "",
        "context_tokens": str(base.context_tokens),
        "learning_rate": _value(base.learning_rate) if base.learning_rate else "",
        "serving": _value({"engine": serving.engine, **served} if serving.engine != "embedded" else served),
    }
    return "[[base]]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items() if value)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_value(each)}' for name, each in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return _text(value) if isinstance(value, str) else str(value)


def _text(text: str) -> str:
    """A basic string of TOML, which is one of JSON, but for the character DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
