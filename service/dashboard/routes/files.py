"""The project's files, a file with its first rows, and uploads, which a script sends to the API itself."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup

from service.api.web.deps import ContextDep
from service.dashboard.routes.checks import state_of
from service.dashboard.web.charts import histogram
from service.dashboard.web.messages import then_back
from service.dashboard.web.pages import UI, page
from service.dashboard.web.visitors import Posted, Visitor
from service.domain.json import JsonObject
from service.operations import checks, files
from service.recipes.json_lines import is_blank, read_object, split_lines
from service.recipes.objective import OBJECTIVES

router = APIRouter(prefix="/files")
PAGE_FILES = 50
PREVIEW_BYTES = 512 * 1024
PREVIEW_ROWS = 10
ROW_CHARACTERS = 4000


@dataclass(frozen=True)
class Turn:
    """Something that somebody says in a row."""

    role: str
    text: str


@dataclass(frozen=True)
class Row:
    """A line of a file as a page shows it: as turns where it has messages, else as it is."""

    line: int
    turns: list[Turn]
    text: str


@router.get("")
async def listed(request: Request, ctx: ContextDep, visitor: Visitor, after: str = "") -> Response:
    """The project's files, newest first, and where to drop new ones."""
    found = await files.page(ctx, visitor.caller, purpose=None, after=after or None, limit=PAGE_FILES, ascending=False)
    limit_bytes = ctx.settings.file_limit_bytes
    values = {"files": found.items, "has_more": found.has_more, "after": after, "limit_bytes": limit_bytes}
    return page(request, "files.html", visitor, values)


@router.get("/{id}")
async def shown(request: Request, ctx: ContextDep, visitor: Visitor, id: str) -> Response:
    """One file and its first rows."""
    file, content = await files.content(ctx, visitor.caller, id)
    lines, complete = await _first_lines(content)
    rows = [(number, line) for number, line in enumerate(lines, start=1) if not is_blank(line, number)]
    newest = await checks.newest_of(ctx, visitor.caller, id)
    check = "" if newest is None else (await state_of(request, ctx, visitor, newest, embedded=True))[0]
    values = {
        "file": file,
        "rows": [_row(number, line) for number, line in rows[:PREVIEW_ROWS]],
        "lengths": histogram([len(_decoded(line)) for _, line in rows]),
        "num_rows": len(rows),
        "num_lines": len(lines),
        "preview_bytes": PREVIEW_BYTES,
        "complete": complete,
        "models": list(ctx.catalogue.bases),
        "objectives": OBJECTIVES.names,
        "check": Markup(check),
    }
    return page(request, "file.html", visitor, values)


@router.post("/{id}/delete")
async def delete(request: Request, ctx: ContextDep, visitor: Visitor, form: Posted, id: str) -> Response:
    """Deletes the file."""
    return await then_back(request, f"{UI}/files", files.delete(ctx, visitor.caller, id), "The file is deleted.")


async def _first_lines(content: AsyncIterator[bytes]) -> tuple[list[bytes], bool]:
    """The whole lines in the first PREVIEW_BYTES, as a job cuts them, and whether these are all."""
    read = bytearray()
    async for chunk in content:
        read += chunk
        if len(read) > PREVIEW_BYTES:
            break
    complete = len(read) <= PREVIEW_BYTES
    lines = list(split_lines([bytes(read[:PREVIEW_BYTES])], PREVIEW_BYTES))
    return (lines if complete else lines[:-1]), complete


def _row(number: int, line: bytes) -> Row:
    found = read_object(line, number)
    turns = [] if isinstance(found, str) else _turns(found[1])
    return Row(number, turns, _decoded(line)[:ROW_CHARACTERS])


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _turns(row: JsonObject) -> list[Turn]:
    """A conversation, a pair of answers, or a prompt and its completion; nothing for other rows."""
    found = _messages(row.get("messages"))
    if isinstance(row.get("input"), dict):
        found += _messages(row["input"].get("messages"))
    for name, label in (("preferred_output", "preferred"), ("non_preferred_output", "other")):
        found += [Turn(label, turn.text) for turn in _messages(row.get(name))]
    found += [Turn(name, row[name]) for name in ("prompt", "completion") if isinstance(row.get(name), str)]
    return [Turn(turn.role, turn.text[:ROW_CHARACTERS]) for turn in found]


def _messages(messages: Any) -> list[Turn]:
    if not isinstance(messages, list):
        return []
    said = [message for message in messages if isinstance(message, dict)]
    return [Turn(str(message.get("role", "?")), _text(message.get("content"))) for message in said]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
