"""What an action has to say, kept by the browser until the next page shows it.

Every form that changes something leads back to a page, so that no reload repeats what was done. In between, what is to
be said is in a cookie: sent to the pages of one noun only, unreadable for scripts, short-lived, and deleted by the page
that shows it.
"""

import base64
import binascii
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal

from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from service.domain.errors import LuthierError

COOKIE = "luthier_message"
LIFE_SECONDS = 60
CHARACTERS = 1000  # browsers keep cookies of 4096 bytes

Kind = Literal["done", "refused", "key"]
KINDS: dict[str, Kind] = {"done": "done", "refused": "refused", "key": "key"}


@dataclass(frozen=True)
class Message:
    """`done` or `refused`: a sentence for people. `key`: a new API key, which is shown once."""

    kind: Kind
    text: str


def message_for(request: Request) -> Message | None:
    """What this page is to show once."""
    kind, _, coded = request.cookies.get(COOKIE, "").partition(".")
    if kind not in KINDS:
        return None
    try:
        return Message(KINDS[kind], base64.urlsafe_b64decode(coded).decode())
    except (binascii.Error, ValueError):
        return None


def forget_message(request: Request, response: Response) -> None:
    response.delete_cookie(COOKIE, path=_noun(request.url.path), httponly=True, samesite="strict")


def back(request: Request, page: str, message: Message) -> Response:
    """Leads to a page, which shows the message."""
    response = RedirectResponse(page, status_code=303)
    text = base64.urlsafe_b64encode(message.text[:CHARACTERS].encode("utf-8", "replace")).decode()
    response.set_cookie(
        COOKIE,
        f"{message.kind}.{text}",
        max_age=LIFE_SECONDS,
        path=_noun(page),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


async def then_back(request: Request, page: str, action: Awaitable[object], done: str, refused: str = "") -> Response:
    """Does it, and leads to a page that says `done`, or why it was refused; there to `refused`, where that is given."""
    try:
        await action
    except LuthierError as error:
        if error.status >= 500:
            raise
        return back(request, refused or page, Message("refused", error.message))
    return back(request, page, Message("done", done))


def _noun(page: str) -> str:
    """`/ui/files` for the files and for one of them."""
    return "/".join(page.partition("?")[0].split("/")[:3])
