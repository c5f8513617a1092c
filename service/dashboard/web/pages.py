"""Templates to responses: the Jinja environment, and what every page is given beside its own values."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.api.web.addresses import API
from service.dashboard.web import formats, packages
from service.operations.sessions import Project, SignedIn

HERE = Path(__file__).parents[1]  # the room, where templates, scripts and their lock are
STATIC = HERE / "static"
UI = "/ui"
NAV = {  # the path's name, which is the icon's: label
    "jobs": "Jobs",
    "files": "Files",
    "models": "Models",
    "playground": "Playground",
    "compare": "Compare",
    "system": "System",
}


def page(
    request: Request,
    template: str,
    signed_in: SignedIn | None = None,
    values: Mapping[str, object] | None = None,
    *,
    status: int = 200,
) -> HTMLResponse:
    """The rendered template."""
    return HTMLResponse(html(request, template, signed_in, values), status_code=status)


def html(
    request: Request, template: str, signed_in: SignedIn | None = None, values: Mapping[str, object] | None = None
) -> str:
    """The template's text, with what `values` and every page has."""
    projects: list[Project] = getattr(request.state, "projects", [])
    shared = {
        "signed_in": signed_in,
        "csrf": getattr(request.state, "csrf", ""),
        "projects": projects,
        "path": request.url.path,
        "scripts_installed": _scripts_installed(),
        "base_url": f"{request.url.scheme}://{request.url.netloc}{API}",
    }
    return environment().get_template(template).render({**shared, **(values or {})})


@cache
def environment() -> Environment:
    """The templates, which escape every value that they show."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(formats.FILTERS)
    made.globals.update(
        ui=UI,
        nav=NAV.items(),
        has=NAV.__contains__,
        static=static_url,
        version=version("luthier"),
        fetch_command=packages.COMMAND,
    )
    return made


@cache
def static_url(name: str) -> str:
    """Where a file of `static` is; another address for other content, so that browsers may keep it."""
    file = STATIC / name
    known = hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else "missing"
    return f"{UI}/static/{name}?v={known}"


@cache
def _scripts_installed() -> bool:
    return packages.installed()
