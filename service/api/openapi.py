"""The OpenAPI document of the whole API, made from the routes: `/openapi.json`, and the file in `openapi/`.

Needs no installation. Adds what FastAPI does not generate: the key, the error envelope, each operation's errors.
"""

from functools import cache
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute

from service.api.routes import (
    checks,
    files,
    health,
    inference,
    jobs,
    keys,
    metrics,
    model_aliases,
    model_imports,
    models,
    permissions,
    responses,
    root,
    uploads,
    webhook_endpoints,
)
from service.api.schemas.errors import ErrorDetail, ErrorEnvelope
from service.domain.json import JsonObject

V1 = (
    files.router,
    uploads.router,
    jobs.router,
    checks.router,
    permissions.router,
    model_imports.router,
    models.router,
    model_aliases.router,
    webhook_endpoints.router,
    keys.router,
    inference.router,
    responses.router,
)
DESCRIPTION = "OpenAI's fine-tuning API on your own machine. Errors are always `{error: {message, type, param, code}}`."
ERRORS = {
    "400": "The request is wrong; the message says where",
    "401": "The key is missing or wrong",
    "403": "The caller may not do this",
    "404": "There is no such object in the caller's project",
    "405": "The path has no such method",
    "413": "The body is too large",
    "500": "An error in the server",
    "503": "A part of the service is unavailable; try again",
}
PUBLIC = ("/", "/health", "/livez", "/readyz")
FRAMEWORK_SCHEMAS = ("HTTPValidationError", "ValidationError")


@cache
def routes() -> list[BaseRoute]:
    """Every route of the API. Made once: the apps of a process share what FastAPI prepares for each of them."""
    all_routes = APIRouter()
    for router in V1:
        all_routes.include_router(router, prefix="/v1")
    all_routes.include_router(root.router)
    all_routes.include_router(health.router)
    all_routes.include_router(metrics.router)
    return all_routes.routes


@cache
def document() -> JsonObject:
    """The document; the same for the same version: made once, not to be changed."""
    app = FastAPI(title="Luthier", version=version("luthier"), description=DESCRIPTION, routes=routes())
    found = app.openapi()
    for path, operations in found["paths"].items():
        for operation in operations.values():
            _describe(operation, public=path in PUBLIC)
    components = found["components"]
    components["schemas"] = {
        name: schema for name, schema in components["schemas"].items() if name not in FRAMEWORK_SCHEMAS
    } | _error_schemas()
    components["responses"] = {status: _error(description) for status, description in ERRORS.items()}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return found


def _describe(operation: JsonObject, *, public: bool) -> None:
    """Errors and the key of one operation."""
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own wording, which clients never receive
    for status in ERRORS:
        if not (public and status in ("400", "401", "403", "404", "413")):
            responses.setdefault(status, {"$ref": f"#/components/responses/{status}"})
    if not public:
        operation["security"] = [{"key": []}]


def _error(description: str) -> JsonObject:
    schema = {"$ref": "#/components/schemas/ErrorEnvelope"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _error_schemas() -> JsonObject:
    template = "#/components/schemas/{model}"
    models = (ErrorEnvelope, ErrorDetail)
    schemas = {model.__name__: model.model_json_schema(ref_template=template) for model in models}
    for schema in schemas.values():
        schema.pop("$defs", None)
    return schemas
