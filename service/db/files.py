"""Rows of files and of the stored segments that hold their bytes."""

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Row, insert, select, update

from service.db import cursors
from service.db.connection import Transaction
from service.db.tables import file_segments, files, jobs
from service.domain.file import File, Segment
from service.domain.job import ACTIVE

_COLUMNS = [files.c[field.name] for field in fields(File)]
LISTED = cursors.Listed(files, "project_id")


def _file(row: Row[Any]) -> File:
    return File(**row._mapping)


async def add(tx: Transaction, file: File, segments: Sequence[Segment]) -> None:
    """Writes a file whose segments are already stored."""
    await tx.connection.execute(insert(files).values({field.name: getattr(file, field.name) for field in fields(File)}))
    rows = [
        {"file_id": file.id, "position": position, "key": segment.key, "bytes": segment.bytes, "sha256": segment.sha256}
        for position, segment in enumerate(segments)
    ]
    if rows:
        await tx.connection.execute(insert(file_segments), rows)


async def find(
    tx: Transaction, project_id: str | None, id: str, *, deleted: bool = False, keep: bool = False
) -> File | None:
    """The project's file; `None` as project for the workers. Deleted ones only when asked for.

    `keep`: nobody deletes it before this transaction ends.
    """
    query = select(*_COLUMNS).where(files.c.id == id)
    if project_id is not None:
        query = query.where(files.c.project_id == project_id)
    if not deleted:
        query = query.where(files.c.deleted_at.is_(None))
    if keep:
        query = query.with_for_update(read=True)
    row = (await tx.connection.execute(query)).one_or_none()
    return None if row is None else _file(row)


async def segments(tx: Transaction, file_id: str) -> list[Segment]:
    """Where the file's bytes lie, in order."""
    columns = [file_segments.c.key, file_segments.c.bytes, file_segments.c.sha256]
    query = select(*columns).where(file_segments.c.file_id == file_id).order_by(file_segments.c.position)
    return [Segment(**row._mapping) for row in await tx.connection.execute(query)]


async def page(
    tx: Transaction, project_id: str, purpose: str | None, after: str | None, limit: int, *, ascending: bool
) -> list[File]:
    """At most `limit` living files beyond `after`; an unknown `after` gives none."""
    query = select(*_COLUMNS).where(files.c.project_id == project_id, files.c.deleted_at.is_(None))
    if purpose is not None:
        query = query.where(files.c.purpose == purpose)
    if after is not None:
        cursor = cursors.place(LISTED, project_id, after)
        query = query.where(files.c.sequence > cursor if ascending else files.c.sequence < cursor)
    order = files.c.sequence if ascending else files.c.sequence.desc()
    return [_file(row) for row in await tx.connection.execute(query.order_by(order).limit(limit))]


async def hide(tx: Transaction, id: str) -> bool:
    """Deletes the file for its users; the bytes stay until `unneeded` lists it. False when it was already deleted."""
    living = update(files).where(files.c.id == id, files.c.deleted_at.is_(None))
    return (await tx.connection.execute(living.values(deleted_at=int(time.time())))).rowcount == 1


async def expired(tx: Transaction, limit: int) -> list[File]:
    """Living files whose time is over, without those that are in use at the moment."""
    locked = select(*_COLUMNS).where(*_over()).limit(limit).with_for_update(key_share=True, skip_locked=True)
    return [_file(row) for row in await tx.connection.execute(locked)]


async def any_expired(tx: Transaction) -> bool:
    """Whether `expired` would find one. Locks nothing."""
    return (await tx.connection.execute(select(files.c.id).where(*_over()).limit(1))).first() is not None


def _over() -> tuple[ColumnElement[bool], ...]:
    return files.c.deleted_at.is_(None), files.c.expires_at <= int(time.time())


async def unneeded(tx: Transaction, limit: int) -> list[str]:
    """Ids of deleted files that no active job names, and whose bytes still lie in storage."""
    active = select(jobs.c.id).where(
        jobs.c.status.in_(ACTIVE), (jobs.c.training_file == files.c.id) | (jobs.c.validation_file == files.c.id)
    )
    query = select(files.c.id).where(files.c.deleted_at.is_not(None), files.c.swept_at.is_(None), ~active.exists())
    return list((await tx.connection.execute(query.limit(limit))).scalars())


async def known(tx: Transaction, ids: Sequence[str]) -> set[str]:
    """Those of the ids that are files', deleted ones too: their bytes go by `unneeded`."""
    return set((await tx.connection.execute(select(files.c.id).where(files.c.id.in_(ids)))).scalars())


async def mark_swept(tx: Transaction, id: str) -> None:
    await tx.connection.execute(update(files).where(files.c.id == id).values(swept_at=int(time.time())))
