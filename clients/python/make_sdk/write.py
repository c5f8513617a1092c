"""The generated files: templates, filled and formatted."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jinja2
from clients.python.make_sdk.document import CLOSE, OPEN, Document, Field, Schema
from clients.python.make_sdk.methods import Room, operations

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
DOCUMENT = ROOT / "openapi" / "openapi.json"
FOLDER = HERE.parent / "src" / "luthier" / "generated"


def generated(openapi: Schema) -> dict[str, str]:
    """The files of the generated folder with their text. Raises DocumentError."""
    document = Document(openapi)
    rooms = operations(document)
    records, params = document.shapes(taken=False), document.shapes(taken=True)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    environment.filters["repr"] = repr
    written = [_qualified(room) for room in rooms]
    models = environment.get_template("models.py.jinja").render(records=records, params=params)
    template = environment.get_template("operations.py.jinja")
    return {
        "__init__.py": "",
        "models.py": _formatted(models),
        "operations.py": _formatted(template.render(rooms=written, is_async=False)),
        "async_operations.py": _formatted(template.render(rooms=written, is_async=True)),
    }


def _qualified(room: Room) -> Room:
    """Types of `models` as the operations name them."""

    def qualify(fields: Sequence[Field]) -> list[Field]:
        return [replace(one, type=one.type.replace(OPEN, "models.").replace(CLOSE, "")) for one in fields]

    methods = [replace(one, required=qualify(one.required), optional=qualify(one.optional)) for one in room.methods]
    return Room(room.name, room.doc, room.children, methods)


def _formatted(text: str) -> str:
    """As the rules of this repository want it: unused imports go, lines are broken."""
    ruff = [sys.executable, "-m", "ruff"]
    name = ["--stdin-filename", str(FOLDER / "generated.py")]
    for command in (["check", "--fix-only", "--quiet", *name, "-"], ["format", "--quiet", *name, "-"]):
        text = subprocess.run(
            [*ruff, *command], input=text, check=True, capture_output=True, text=True, cwd=ROOT
        ).stdout
    return text
