"""Rows of sign-ins to the dashboard. What a browser sends is stored as its SHA-256, as keys are."""

import time
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from service.db.connection import Transaction
from service.db.keys import ApiKey
from service.db.tables import api_keys, projects, sessions


@dataclass(frozen=True)
class Session:
    """A sign-in that has not expired, its living key, and the project that it acts in."""

    key: ApiKey
    project_id: str
    project: str
    expires_at: int


async def add(tx: Transaction, sha256: str, key: ApiKey, life_seconds: int) -> None:
    """Writes a new sign-in, in the key's own project."""
    now = int(time.time())
    row = {"sha256": sha256, "key_id": key.id, "project_id": key.project_id}
    await tx.connection.execute(insert(sessions).values(**row, created_at=now, expires_at=now + life_seconds))


async def find(tx: Transaction, sha256: str) -> Session | None:
    """None for a sign-in that is over, and for one whose key was revoked."""
    query = (
        select(
            *(api_keys.c[name] for name in ("id", "project_id", "role", "name", "created_at")),
            sessions.c.project_id.label("acting_in"),
            projects.c.name.label("project"),
            sessions.c.expires_at,
        )
        .select_from(sessions.join(api_keys, api_keys.c.id == sessions.c.key_id))
        .join(projects, projects.c.id == sessions.c.project_id)
        .where(sessions.c.sha256 == sha256, sessions.c.expires_at > int(time.time()), api_keys.c.revoked_at.is_(None))
    )
    row = (await tx.connection.execute(query)).one_or_none()
    if row is None:
        return None
    key = ApiKey(row.id, row.project_id, row.role, row.name, row.created_at)
    return Session(key, row.acting_in, row.project, row.expires_at)


async def select_project(tx: Transaction, sha256: str, project_id: str) -> None:
    """From now on the sign-in acts in that project."""
    await tx.connection.execute(update(sessions).where(sessions.c.sha256 == sha256).values(project_id=project_id))


async def remove(tx: Transaction, sha256: str) -> None:
    await tx.connection.execute(delete(sessions).where(sessions.c.sha256 == sha256))


async def remove_expired(tx: Transaction) -> None:
    await tx.connection.execute(delete(sessions).where(sessions.c.expires_at <= int(time.time())))
