"""The written API is the real one: openapi.json is current, and the table names every route."""

import json
import re

from service.api.openapi import document
from tests.house_rules.tree import ROOT

OPENAPI = ROOT / "openapi"


def test_the_openapi_file_is_current() -> None:
    written = json.loads((OPENAPI / "openapi.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(document())), "run `make openapi`"


def test_the_table_names_every_route_once() -> None:
    table = (OPENAPI / "README.md").read_text(encoding="utf-8")
    promised = re.findall(r"^\| `([A-Z]+ /[^`]*)` \| (?:same|extended|refused) \|", table, re.MULTILINE)
    routes = [f"{method.upper()} {path}" for path, methods in document()["paths"].items() for method in methods]
    assert sorted(promised) == sorted(routes)


def test_every_operation_has_an_id_a_summary_and_the_envelope_for_its_errors() -> None:
    for path, methods in document()["paths"].items():
        for operation in methods.values():
            assert re.fullmatch(r"[a-z][A-Za-z]+", operation["operationId"]), path
            assert operation["description"], path
            assert "422" not in operation["responses"]
            assert operation["responses"]["500"] == {"$ref": "#/components/responses/500"}


def test_every_endpoint_but_health_and_the_root_wants_a_key() -> None:
    for path, methods in document()["paths"].items():
        for operation in methods.values():
            public = path in ("/", "/health", "/livez", "/readyz")
            assert operation.get("security", []) == ([] if public else [{"key": []}])
