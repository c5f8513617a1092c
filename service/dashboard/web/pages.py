"""Templates to responses: the Jinja environment, and what every page is given beside its own values.

Templates write times, sizes and numbers by filters: for people, in English, times in UTC unless a script makes them
local.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.api.web.addresses import API
from service.dashboard.web import packages
from service.dashboard.web.messages import forget_message, message_for
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
MINUTE, HOUR, DAY = 60, 3600, 86_400  # seconds
UNITS = ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"))


def page(
    request: Request,
    template: str,
    signed_in: SignedIn | None = None,
    values: Mapping[str, object] | None = None,
    *,
    status: int = 200,
) -> HTMLResponse:
    """The rendered template, with the message that is waiting for a page."""
    said = message_for(request)
    response = HTMLResponse(html(request, template, signed_in, {**(values or {}), "said": said}), status_code=status)
    if said is not None:
        forget_message(request, response)
    return response


def html(
    request: Request, template: str, signed_in: SignedIn | None = None, values: Mapping[str, object] | None = None
) -> str:
    """The template's text, with what `values` and every page has; halves of surrogate pairs are replaced."""
    projects: list[Project] = getattr(request.state, "projects", [])
    shared = {
        "signed_in": signed_in,
        "csrf": getattr(request.state, "csrf", ""),
        "projects": projects,
        "path": request.url.path,
        "scripts_installed": _scripts_installed(),
        "base_url": f"{request.url.scheme}://{request.url.netloc}{API}",
    }
    rendered = environment().get_template(template).render({**shared, **(values or {})})
    return rendered.encode("utf-8", "replace").decode("utf-8")


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
    made.filters.update(FILTERS)
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


def _ago(seconds: int, now: float | None = None) -> str:
    """`5 min ago` for a unix time."""
    passed = (time.time() if now is None else now) - seconds
    return "just now" if passed < MINUTE else f"{_largest(passed)} ago"


def _largest(seconds: float) -> str:
    unit, name = next((unit, name) for unit, name in UNITS if seconds >= unit)
    return f"{int(seconds // unit)} {name}"


def _duration(seconds: float) -> str:
    """`42 s`, `5 min` or `2 h 10 min`."""
    whole = max(0, round(seconds))
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{round(whole / MINUTE)} min"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def _iso(seconds: int) -> str:
    """For `<time datetime>`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _moment(seconds: int) -> str:
    """`2026-05-04 13:05 UTC`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _size(num_bytes: int) -> str:
    """`1.2 MiB`."""
    amount = float(num_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    if num_bytes == 1:
        return "1 byte"
    return f"{num_bytes} bytes" if unit == "bytes" else f"{amount:.1f}".removesuffix(".0") + f" {unit}"


def _number(value: float | None) -> str:
    """`12,345`, or four digits of what is no whole number."""
    if value is None:
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def _value(given: Any) -> str:
    """A setting as its user would write it."""
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)


def _shortened(text: str, characters: int = 40) -> str:
    """The text's beginning and end, where it is longer."""
    if len(text) <= characters:
        return text
    end = characters // 3
    return f"{text[: characters - end - 1]}…{text[-end:]}"


FILTERS: Mapping[str, Callable[..., str]] = {
    "ago": _ago,
    "duration": _duration,
    "iso": _iso,
    "moment": _moment,
    "size": _size,
    "number": _number,
    "value": _value,
    "shortened": _shortened,
}
