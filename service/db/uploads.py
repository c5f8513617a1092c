"""Rows of uploads and of their parts.

Every change updates the upload's row while it is pending, so one of two succeeds.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, bindparam, delete, insert, select, update

from service.db.connection import Transaction
from service.db.tables import upload_parts, uploads
from service.domain.file import Segment
from service.domain.upload import PARTS_LIMIT, UPLOAD_LIMIT_BYTES, Status, Upload, UploadPart

SETTLED_SECONDS = 120
_COLUMNS = [uploads.c[field.name] for field in fields(Upload)]


def _upload(row: Row[Any]) -> Upload:
    return Upload(**row._mapping).at(int(time.time()))


async def add(tx: Transaction, upload: Upload) -> None:
    """Writes a new upload."""
    values = {field.name: getattr(upload, field.name) for field in fields(Upload)}
    await tx.connection.execute(insert(uploads).values(values))


async def find(tx: Transaction, project_id: str, id: str, *, lock: bool = False) -> Upload | None:
    """The project's upload, as it stands now: `expired` even before the sweep has recorded it.

    `lock`: nobody changes it before this transaction ends.
    """
    query = select(*_COLUMNS).where(uploads.c.id == id, uploads.c.project_id == project_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await tx.connection.execute(query)).one_or_none()
    return None if row is None else _upload(row)


async def add_part(tx: Transaction, part: UploadPart) -> bool:
    """Writes a part whose bytes are stored; False when its upload is not pending any more, or is full."""
    size = part.segment.bytes
    counted = (
        update(uploads)
        .where(
            _pending(part.upload_id),
            uploads.c.stored_bytes + size <= UPLOAD_LIMIT_BYTES,
            uploads.c.stored_parts < PARTS_LIMIT,
        )
        .values(stored_bytes=uploads.c.stored_bytes + size, stored_parts=uploads.c.stored_parts + 1)
    )
    if (await tx.connection.execute(counted)).rowcount != 1:
        return False
    row = {"id": part.id, "upload_id": part.upload_id, "created_at": part.created_at, **asdict(part.segment)}
    await tx.connection.execute(insert(upload_parts).values(row))
    return True


async def parts(tx: Transaction, id: str) -> dict[str, Segment]:
    """Every part of the upload: its id, and where its bytes lie."""
    columns = [upload_parts.c.key, upload_parts.c.bytes, upload_parts.c.sha256]
    query = select(upload_parts.c.id, *columns).where(upload_parts.c.upload_id == id)
    return {row.id: Segment(row.key, row.bytes, row.sha256) for row in await tx.connection.execute(query)}


async def end(tx: Transaction, id: str, status: Status, *, file_id: str | None = None) -> bool:
    """Ends a pending upload; False when it is not pending any more."""
    ended = update(uploads).where(_pending(id)).values(status=status, file_id=file_id)
    return (await tx.connection.execute(ended)).rowcount == 1


# An upload is not swept while it is pending: said here because the index begins with it.
_PENDING = and_(uploads.c.swept_at.is_(None), uploads.c.status == "pending")


async def expire(tx: Transaction) -> None:
    """Marks pending uploads whose time is over as expired."""
    due = _overdue().with_for_update(key_share=True, skip_locked=True)
    await tx.connection.execute(update(uploads).where(uploads.c.id.in_(due), _PENDING).values(status="expired"))


async def any_overdue(tx: Transaction) -> bool:
    """Whether `expire` would find one."""
    return (await tx.connection.execute(_overdue().limit(1))).first() is not None


def _overdue() -> Select[tuple[str]]:
    return select(uploads.c.id).where(_PENDING, uploads.c.expires_at <= int(time.time()))


async def remove_parts(tx: Transaction, ids: Sequence[str]) -> None:
    """Removes parts: their bytes are removed, or belong to a file now."""
    if ids:
        named = delete(upload_parts).where(upload_parts.c.id == bindparam("part"))
        await tx.connection.execute(named, [{"part": id} for id in ids])


async def unneeded_parts(tx: Transaction, limit: int) -> dict[str, str]:
    """Parts of uploads that have ended, which no file has taken: id -> key."""
    ended = upload_parts.join(uploads, uploads.c.id == upload_parts.c.upload_id)
    query = select(upload_parts.c.id, upload_parts.c.key).select_from(ended).where(uploads.c.status != "pending")
    return {row.id: row.key for row in await tx.connection.execute(query.order_by(upload_parts.c.id).limit(limit))}


async def unswept(tx: Transaction, limit: int) -> list[Upload]:
    """Uploads that have ended, and whose time is over for so long that no part can still be on its way."""
    settled = int(time.time()) - SETTLED_SECONDS
    query = select(*_COLUMNS).where(
        uploads.c.swept_at.is_(None), uploads.c.expires_at < settled, uploads.c.status != "pending"
    )
    return [_upload(row) for row in await tx.connection.execute(query.limit(limit))]


async def known(tx: Transaction, ids: Sequence[str]) -> set[str]:
    """Those of the ids that are uploads', ended ones too: their bytes are a file's, or go by `unneeded_parts`."""
    return set((await tx.connection.execute(select(uploads.c.id).where(uploads.c.id.in_(ids)))).scalars())


async def mark_swept(tx: Transaction, id: str) -> None:
    await tx.connection.execute(update(uploads).where(uploads.c.id == id).values(swept_at=int(time.time())))


def _pending(id: str) -> ColumnElement[bool]:
    return and_(uploads.c.id == id, uploads.c.status == "pending", uploads.c.expires_at > int(time.time()))
