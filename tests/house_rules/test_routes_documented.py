"""Every route is in the OpenAPI document, which is committed as it is, and in its README."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from service.api.openapi import document, routes
from tests.house_rules.tree import ROOT

FOLDER = ROOT / "openapi"
METHODS = {"get", "post", "put", "patch", "delete"}

Operation = tuple[str, str]  # method, path


def documented(openapi: Mapping[str, Any]) -> set[Operation]:
    """The operations of an OpenAPI document."""
    return {(method, path) for path, item in openapi["paths"].items() for method in item if method in METHODS}


def routed(app: FastAPI) -> Iterator[Operation]:
    """The operations that an app answers."""
    for route in iter_route_contexts(app.routes):
        path = re.sub(r":\w+}", "}", str(route.path))  # a converter belongs to the router
        yield from ((method.lower(), path) for method in route.methods or ())


def unmentioned(readme: str, paths: Iterable[str]) -> list[str]:
    """Paths that a text does not name."""
    return sorted(path for path in paths if not re.search(re.escape(path) + r"(?![\w/{])", readme))


def test_every_route_is_in_the_openapi_document():
    app = FastAPI(openapi_url=None, routes=routes())
    assert set(routed(app)) == documented(document())


def test_the_committed_openapi_file_is_current():
    committed = json.loads((FOLDER / "openapi.json").read_text(encoding="utf-8"))
    assert committed == document(), "run: make openapi"


def test_every_route_is_in_the_readme_of_the_api():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert unmentioned(readme, document()["paths"]) == []


def test_these_rules_can_be_broken():
    app = FastAPI(openapi_url=None)
    app.add_api_route("/v1/a", lambda: None, methods=["POST"])
    app.add_api_route("/v1/b", lambda: None)
    assert set(routed(app)) == {("post", "/v1/a"), ("get", "/v1/b")}
    assert documented({"paths": {"/v1/a": {"get": {}, "parameters": []}}}) == {("get", "/v1/a")}
    assert unmentioned("GET `/v1/a/{id}`", ["/v1/a", "/v1/a/{id}"]) == ["/v1/a"]
