"""Rows of the installation, its projects and their API keys. A key is stored as its SHA-256, never as itself."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, insert, select, tuple_, update

from service.db.connection import Transaction
from service.db.inserts import add_if_new
from service.db.tables import api_keys, installation, projects
from service.domain.api_key import ListedKey


@dataclass(frozen=True)
class Installation:
    """The one organisation of this installation; `organization` is the slug in model names."""

    organization_id: str
    organization: str


@dataclass(frozen=True)
class ApiKey:
    """A key as the database stores it."""

    id: str
    project_id: str
    role: str
    name: str
    created_at: int
    revoked_at: int | None = None


@dataclass(frozen=True)
class Project:
    """A project by its two names."""

    id: str
    name: str


_KEY = [api_keys.c[name] for name in ("id", "project_id", "role", "name", "created_at", "revoked_at")]


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(**row._mapping)


async def find_installation(tx: Transaction) -> Installation | None:
    columns = [installation.c.organization_id, installation.c.organization]
    row = (await tx.connection.execute(select(*columns))).one_or_none()
    return None if row is None else Installation(**row._mapping)


async def add_installation(tx: Transaction, new: Installation) -> bool:
    """False when there is one already."""
    values = {"singleton": 1, "organization_id": new.organization_id, "organization": new.organization}
    return await add_if_new(tx, installation, {**values, "created_at": int(time.time())})


async def add_project(tx: Transaction, id: str, name: str) -> bool:
    """False when there is one of that name already."""
    return await add_if_new(tx, projects, {"id": id, "name": name, "created_at": int(time.time())})


async def find_project(tx: Transaction, name: str) -> str | None:
    """The id of the project of that name."""
    return (await tx.connection.execute(select(projects.c.id).where(projects.c.name == name))).scalar_one_or_none()


async def all_projects(tx: Transaction) -> list[Project]:
    query = select(projects.c.id, projects.c.name).order_by(projects.c.name)
    return [Project(**row._mapping) for row in await tx.connection.execute(query)]


async def project_of(tx: Transaction, id: str) -> Project | None:
    query = select(projects.c.id, projects.c.name).where(projects.c.id == id)
    row = (await tx.connection.execute(query)).one_or_none()
    return None if row is None else Project(**row._mapping)


async def project_exists(tx: Transaction, id: str) -> bool:
    return (await tx.connection.execute(select(projects.c.id).where(projects.c.id == id))).first() is not None


async def known_projects(tx: Transaction, ids: Sequence[str]) -> set[str]:
    """Which of these ids are projects'."""
    return set((await tx.connection.execute(select(projects.c.id).where(projects.c.id.in_(ids)))).scalars())


async def add_key(tx: Transaction, key: ApiKey, sha256: str) -> None:
    await tx.connection.execute(
        insert(api_keys).values(
            id=key.id,
            project_id=key.project_id,
            role=key.role,
            sha256=sha256,
            name=key.name,
            created_at=key.created_at,
        )
    )


async def find_key(tx: Transaction, sha256: str) -> ApiKey | None:
    """The living key with this hash."""
    query = select(*_KEY).where(api_keys.c.sha256 == sha256, api_keys.c.revoked_at.is_(None))
    row = (await tx.connection.execute(query)).one_or_none()
    return None if row is None else _key(row)


async def name_of(tx: Transaction, id: str) -> str:
    """The name of the key with this id, revoked or not; empty where there is none."""
    return (await tx.connection.execute(select(api_keys.c.name).where(api_keys.c.id == id))).scalar_one_or_none() or ""


async def page(tx: Transaction, after: str | None, limit: int) -> list[ListedKey]:
    """Keys of all projects, newest first; those after the key `after` in this order, none if there is no such key."""
    order = tuple_(api_keys.c.created_at, api_keys.c.id)
    query = _listed().order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc()).limit(limit)
    if after is not None:
        known = (await tx.connection.execute(select(*_KEY).where(api_keys.c.id == after))).one_or_none()
        if known is None:
            return []
        query = query.where(order < (known.created_at, known.id))
    return [ListedKey(**row._mapping) for row in await tx.connection.execute(query)]


async def listed(tx: Transaction, id: str) -> ListedKey | None:
    """The key with this id, revoked or not."""
    row = (await tx.connection.execute(_listed().where(api_keys.c.id == id))).one_or_none()
    return None if row is None else ListedKey(**row._mapping)


def _listed() -> Select[Any]:
    project = projects.c.name.label("project")
    return select(*_KEY, project).join(projects, projects.c.id == api_keys.c.project_id)


async def all_keys(tx: Transaction) -> list[ApiKey]:
    return [_key(row) for row in await tx.connection.execute(select(*_KEY).order_by(api_keys.c.created_at))]


async def revoke_key(tx: Transaction, id: str) -> bool:
    """False when there is no such living key."""
    living = update(api_keys).where(api_keys.c.id == id, api_keys.c.revoked_at.is_(None))
    return (await tx.connection.execute(living.values(revoked_at=int(time.time())))).rowcount == 1
