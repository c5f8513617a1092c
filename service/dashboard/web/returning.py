"""Where somebody continues who has to sign in first, or whose page was out of date: the page they were on.

What was filled in for a new job goes along as the page's query, and any other address leads home.
"""

from urllib.parse import urlencode, urlsplit

from fastapi import Request
from starlette.routing import Match

from service.dashboard.web.pages import UI
from service.dashboard.web.visitors import CSRF_FIELD, READING, Form

HOME = f"{UI}/jobs"
NEW_JOB = f"{UI}/jobs/new"
ADDRESS_CHARACTERS = 16_000  # beyond, servers refuse an address


def page_of(request: Request, form: Form) -> str:
    """The page that the request is for or comes from, with what `form` has filled in of a new job."""
    path = request.url.path
    if (path == HOME and form) or path.startswith(f"{NEW_JOB}/"):
        return new_job_with(form)
    current = urlsplit(request.headers.get("hx-current-url", ""))
    if "hx-request" in request.headers:
        if current.path == NEW_JOB and form:
            return new_job_with(form)
        return ours(_address(current.path, current.query))
    if request.method in READING:
        return ours(_address(path, request.url.query))
    return _nearest(request, path)


def new_job_with(form: Form) -> str:
    """The form of a new job, filled in; empty where that makes no address."""
    filled = urlencode({name: value for name, value in form.items() if value and name != CSRF_FIELD})
    return NEW_JOB if len(filled) > ADDRESS_CHARACTERS else _address(NEW_JOB, filled)


def ours(page: str) -> str:
    """A page of ours, never an address of somebody else's."""
    return page if page.startswith(f"{UI}/") and "//" not in page and "\\" not in page else HOME


def _address(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def _nearest(request: Request, path: str) -> str:
    """The page above the address of an action: `/ui/files/one` for `/ui/files/one/delete`."""
    while path.startswith(f"{UI}/"):
        scope = {**request.scope, "method": "GET", "path": path}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            return path
        path = path.rpartition("/")[0]
    return HOME
