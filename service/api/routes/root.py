"""GET /: where the API is. Needs no key: it is what somebody sees who opens the address in a browser."""

from importlib.metadata import version

from fastapi import APIRouter
from pydantic import BaseModel

from service.api.web.addresses import API

router = APIRouter(tags=["Health"])


class Root(BaseModel):
    """Paths of this server. A client's base URL is the server's address followed by `api`."""

    name: str = "Luthier"
    version: str
    api: str = API
    models: str = f"{API}/models"
    openapi: str = "/openapi.json"
    health: str = "/health"


@router.get("/", operation_id="root")
async def root() -> Root:
    """Say where the API is."""
    return Root(version=version("luthier"))
