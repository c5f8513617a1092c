"""Rows of checks. Work on a check is locked before its row (`service.db.work`)."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Row, insert, select, update

from service.db import cursors
from service.db.connection import Transaction
from service.db.tables import checks
from service.domain.check import FINAL, Check, Status

_COLUMNS = [checks.c[field.name] for field in fields(Check)]
LISTED = cursors.Listed(checks, "project_id")
_SUMMARY = [column for column in _COLUMNS if column.name != "result"]


def _check(row: Row[Any]) -> Check:
    return Check(**row._mapping)


async def add(tx: Transaction, check: Check) -> None:
    """Writes a new check; its id must be new."""
    values = {field.name: getattr(check, field.name) for field in fields(Check)}
    await tx.connection.execute(insert(checks).values(values))


async def find(tx: Transaction, project_id: str | None, id: str, *, lock: bool = False) -> Check | None:
    """The check of that project; `None` as project for the workers. `lock`: it cannot change meanwhile."""
    query = select(*_COLUMNS).where(checks.c.id == id)
    if project_id is not None:
        query = query.where(checks.c.project_id == project_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await tx.connection.execute(query)).one_or_none()
    return None if row is None else _check(row)


async def page(tx: Transaction, project_id: str, after: str | None, limit: int) -> list[Check]:
    """At most `limit` checks without their results, newest first, older than `after`; an unknown `after` gives none."""
    query = select(*_SUMMARY).where(checks.c.project_id == project_id).order_by(checks.c.sequence.desc()).limit(limit)
    if after is not None:
        query = query.where(checks.c.sequence < cursors.place(LISTED, project_id, after))
    return [_check(row) for row in await tx.connection.execute(query)]


async def newest_of(tx: Transaction, project_id: str, training_file: str) -> str | None:
    """The id of the newest check of that file."""
    query = select(checks.c.id).where(checks.c.project_id == project_id, checks.c.training_file == training_file)
    return (await tx.connection.execute(query.order_by(checks.c.sequence.desc()).limit(1))).scalar_one_or_none()


async def change(tx: Transaction, id: str, expected: Status, values: Mapping[str, Any]) -> bool:
    """Sets `values` if the check's status is `expected`; False when it was not."""
    matching = update(checks).where(checks.c.id == id, checks.c.status == expected)
    return (await tx.connection.execute(matching.values(dict(values)))).rowcount == 1


async def beyond(tx: Transaction, project_id: str, kept: int, limit: int) -> list[str]:
    """Ids of the project's checks that have ended and are older than its newest `kept`; at most `limit`."""
    of_project = checks.c.project_id == project_id
    newest = select(checks.c.sequence).where(of_project).order_by(checks.c.sequence.desc()).offset(kept).limit(1)
    query = select(checks.c.id).where(of_project, checks.c.status.in_(FINAL))
    query = query.where(checks.c.sequence <= newest.scalar_subquery())
    return list((await tx.connection.execute(query.limit(limit))).scalars())


async def expired(tx: Transaction, life_seconds: float, limit: int) -> list[str]:
    """Ids of checks that were made longer ago, whatever their status; the oldest first."""
    query = select(checks.c.id).where(checks.c.created_at < int(time.time() - life_seconds))
    return list((await tx.connection.execute(query.order_by(checks.c.created_at).limit(limit))).scalars())


async def remove(tx: Transaction, ids: Sequence[str]) -> None:
    await cursors.remove(tx, LISTED, checks.c.id.in_(ids))
