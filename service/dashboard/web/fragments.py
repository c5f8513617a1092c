"""Parts of pages that a browser asks for again every few seconds, and that are sent only when they have changed."""

import hashlib
from collections.abc import Mapping

from fastapi import Request
from fastapi.responses import HTMLResponse, Response

from service.dashboard.web.pages import html
from service.operations.sessions import SignedIn

BUSY_SECONDS, IDLE_SECONDS = 2, 10


def live(
    request: Request,
    template: str,
    signed_in: SignedIn,
    values: Mapping[str, object],
    *,
    id: str,
    url: str,
    busy: bool,
    idle_seconds: int = IDLE_SECONDS,
) -> tuple[str, str]:
    """The fragment, which asks `url` for its next state, and a hash of what it shows. 0 seconds: it asks no more."""
    inner = html(request, template, signed_in, values)
    tag = hashlib.sha256(inner.encode()).hexdigest()[:16]
    separator = "&" if "?" in url else "?"
    shown = {
        "inner": inner,
        "id": id,
        "url": f"{url}{separator}have={tag}",
        "seconds": BUSY_SECONDS if busy else idle_seconds,
    }
    return html(request, "live.html", signed_in, shown), tag


def changed(fragment: tuple[str, str], have: str) -> Response:
    """The fragment for a browser that has the one of hash `have`: nothing where that is the same."""
    text, tag = fragment
    return Response(status_code=204) if tag == have else HTMLResponse(text)
