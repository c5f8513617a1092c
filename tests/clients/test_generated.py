"""The generator of the SDK: its output is committed as it is, old Pythons read it, and new operations need no hand."""

import ast
import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from clients.python.make_sdk.document import Document, DocumentError
from clients.python.make_sdk.methods import operations, placed
from clients.python.make_sdk.write import DOCUMENT, FOLDER, generated
from tests.house_rules.tree import ROOT

SOURCES = sorted((ROOT / "clients/python/src").rglob("*.py"))
ERROR = {"default": {"description": "wrong"}}


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    return found


def with_path(openapi: dict[str, Any], path: str, **item: Any) -> Document:
    changed = copy.deepcopy(openapi)
    changed["paths"][path] = item
    return Document(changed)


def a_response(schema: object) -> dict[str, Any]:
    return {"200": {"description": "good", "content": {"application/json": {"schema": schema}}}}


def names(document: Document) -> set[str]:
    return {f"{room.name}.{method.name}" for room in operations(document) for method in room.methods}


def test_the_committed_sdk_is_that_of_the_document(openapi: dict[str, Any]) -> None:
    for name, text in generated(openapi).items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, f"{name}: run `make sdk`"


def test_every_operation_is_a_method(openapi: dict[str, Any]) -> None:
    ids = {item[verb]["operationId"] for item in openapi["paths"].values() for verb in item}
    made = [method for room in operations(Document(openapi)) for method in room.methods]
    assert {method.id for method in made} == ids
    streams = [method for method in made if method.result == "stream"]
    assert len(made) == len(ids) + len(streams) and len(streams) >= 3, "a stream beside each object that may stream"


@pytest.mark.parametrize(
    ("path", "id", "place"),
    [
        ("/v1/files/{file_id}/content", "downloadFile", ("files", "download")),
        ("/v1/fine_tuning/jobs/{id}/cancel", "cancelFineTuningJob", ("fine_tuning.jobs", "cancel")),
        ("/v1/fine_tuning/checks/{id}/rows", "listFineTuningCheckRows", ("fine_tuning.checks.rows", "list")),
        ("/v1/model_aliases/{alias}/promote", "promoteModelAlias", ("model_aliases", "promote")),
        ("/v1/models", "importModel", ("models", "import_")),
        ("/v1/uploads/{upload_id}/parts", "addUploadPart", ("uploads.parts", "add")),
        ("/health", "health", ("", "health")),
    ],
)
def test_a_path_and_an_id_say_what_a_method_is_called(path: str, id: str, place: tuple[str, str]) -> None:
    found, name = placed(path, id)
    assert (".".join(found), name) == place


def test_the_program_that_mypy_reads_uses_every_resource(openapi: dict[str, Any]) -> None:
    used = set(re.findall(r"luthier((?:\.\w+)+)", (ROOT / "tests/clients/typed_program.py").read_text()))
    for path, item in openapi["paths"].items():
        for verb in item:
            room, method = placed(path, item[verb]["operationId"])
            place = "".join(f".{name}" for name in room)
            assert any(f"{one}.".startswith(f"{place or '.' + method}.") for one in used), place or method


def test_an_operation_that_comes_later_becomes_a_method(openapi: dict[str, Any], tmp_path: Path) -> None:
    widget = {
        "type": "object",
        "description": 'Says "\\d" and """.',
        "required": ["id", "from"],
        "properties": {
            "id": {"type": "string"},
            "ratio": {"enum": [1.0, None]},
            "callers": {"enum": [["direct"]]},
            "from": {"type": ["string", "null"]},
            "self": {"$ref": "#/components/schemas/Widget"},
            "parts": {"type": "array", "items": {"type": "object", "properties": {"x-size": {"type": "number"}}}},
        },
    }
    document = with_path(
        openapi,
        "/v2/widgets/{widget_id}",
        parameters=[{"name": "widget_id", "in": "path", "required": True, "schema": {"type": "string"}}],
        put={
            "operationId": "updateWidget",
            "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Widget"}}}},
            "responses": a_response({"$ref": "#/components/schemas/Widget"}) | ERROR,
        },
        get={"operationId": "retrieveWidget", "responses": a_response({"type": "array"})},
        delete={"operationId": "deleteWidget", "responses": {"204": {"description": "gone"}}},
    )
    document.openapi["components"]["schemas"]["Widget"] = widget
    texts = generated(document.openapi)
    for text in texts.values():
        ast.parse(text, feature_version=(3, 9))
    update = texts["operations.py"].split("class Widgets:")[1].split("class ")[0]
    assert "def update(" in update and "from_: Union[Omit, Optional[str]] = OMIT," in update
    assert "-> None:" in update.split("def delete(")[1]
    assert "self.widgets = Widgets(transport)" in texts["operations.py"]
    assert "-> Any:" in update.split("def retrieve(")[1]
    for word in (
        "class WidgetParts(Record)",
        "metadata={'json': 'x-size'}",
        "ratio: Optional[float]",
        "callers: Any = None",
        "WidgetParam = TypedDict(",
    ):
        assert word.replace("'", '"') in texts["models.py"].replace("'", '"'), word


def test_two_operations_of_one_name_are_told_apart_by_their_ids(openapi: dict[str, Any]) -> None:
    good = a_response({"$ref": "#/components/schemas/FileObject"})
    document = with_path(
        openapi,
        "/v1/files/{file_id}/thumbnail",
        get={"operationId": "downloadThumbnail", "responses": good},
    )
    found = names(document)
    assert {"Files.download_thumbnail", "Files.download_file"} <= found and "Files.download" not in found


@pytest.mark.parametrize(
    ("operation", "sentence"),
    [
        ({"responses": ERROR}, "no response"),
        (
            {
                "responses": {
                    "200": {"description": "either", "content": {"application/json": {}, "application/zip": {}}},
                }
            },
            "more than one",
        ),
        (
            {
                "responses": {"204": {"description": "gone"}},
                "requestBody": {"content": {"application/xml": {"schema": {"type": "string"}}}},
            },
            "application/xml",
        ),
    ],
)
def test_what_cannot_be_expressed_is_said(openapi: dict[str, Any], operation: dict[str, Any], sentence: str) -> None:
    document = with_path(openapi, "/v1/odd", post={"operationId": "createOdd", **operation})
    with pytest.raises(DocumentError, match=f"createOdd: .*{sentence}"):
        operations(document)


def newer_than_39(text: str) -> list[int]:
    """Lines with syntax, or with unions of types, that Python 3.9 does not run."""
    tree = ast.parse(text, feature_version=(3, 9))
    unions = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.BitOr)
        and any(isinstance(side, ast.Constant) and side.value is None for side in (node.left, node.right))
    ]
    calls = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id in ("anext", "aiter"))
            or any(word.arg in ("strict", "slots", "kw_only") for word in node.keywords)
        )
    ]
    return unions + calls


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_39_reads_every_source(path: Path) -> None:
    assert newer_than_39(path.read_text(encoding="utf-8")) == []


def quoted_names(text: str) -> list[int]:
    """Lines where a type holds a class's name in quotes: Python before 3.11 leaves it text (`list["Plan"]`)."""
    tree = ast.parse(text)
    whole = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    plain = {
        id(word)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal"
        for word in ast.walk(node.slice)
    }
    annotations = [node.annotation for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)]
    return [
        word.lineno
        for annotation in annotations
        for word in ast.walk(annotation)
        if isinstance(word, ast.Constant) and isinstance(word.value, str) and id(word) not in plain
        if whole or word is not annotation
    ]


def test_no_type_holds_a_name_in_quotes_which_old_pythons_leave_text(openapi: dict[str, Any]) -> None:
    assert quoted_names(generated(openapi)["models.py"]) == []


def test_the_rule_of_quotes_can_be_broken() -> None:
    lines = ("a: list['A']", "b: 'A'", "c: Optional[Literal['c']]", "d: Optional['A'] = None", "e: dict[str, 'A']")
    assert quoted_names("\n".join(lines)) == [1, 4, 5]


def test_this_rule_can_be_broken() -> None:
    assert newer_than_39("x: int | None = 1\nzip(a, b, strict=True)\n") == [1, 2]
    with pytest.raises(SyntaxError):
        newer_than_39("match x:\n    case 1: pass\n")
