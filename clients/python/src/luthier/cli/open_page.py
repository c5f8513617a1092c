"""`luthier open`: the dashboard's page of a job, a file, a check or a model, in the browser."""

import sys
from typing import Annotated
from urllib.parse import quote

import typer

from luthier.cli.output import line, note

PAGES = ("jobs", "files", "models", "playground", "compare", "system", "keys")
BY_PREFIX = {"ftjob-": "jobs", "file-": "files", "ftcheck-": "checks"}


def open_page(
    what: Annotated[
        str, typer.Argument(metavar="[WHAT]", help="The id of a job, a file or a check, a model, or a page's name.")
    ] = "jobs",
) -> None:
    """Open a page of the dashboard; prints its address. Without a terminal it is printed only.

    Example: luthier open ftjob-eG6Z64rIbJ450brAy3d2gM5Z
    """
    import webbrowser

    if not what:
        raise typer.BadParameter("It is empty.", param_hint="WHAT")

    from luthier.configuration import find_service

    url = f"{find_service().url}/ui/{path_of(what)}"
    line(url)
    if sys.stdout.isatty() and not webbrowser.open(url):
        note("There is no browser here: open the address in one. It asks for the API key.")


def path_of(what: str) -> str:
    """The page below /ui: of an object by the beginning of its id, of a model in the playground."""
    if what in PAGES:
        return what
    for prefix, page in BY_PREFIX.items():
        if what.startswith(prefix):
            return f"{page}/{quote(what, safe='')}"
    return f"playground?tuned={quote(what, safe='')}"
