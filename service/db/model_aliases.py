"""Rows of model aliases, and of every change of one. The changes of a deleted alias stay."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, func, insert, or_, select, update

from service.db import cursors
from service.db.connection import Transaction
from service.db.inserts import add_if_new
from service.db.tables import checkpoint_permissions, model_alias_changes, model_aliases
from service.domain.model import Model
from service.domain.model_alias import AliasChange, Candidate, ModelAlias

LISTED = cursors.Listed(model_aliases, "project_id", id="name")


def _candidate(row: Row[Any]) -> Candidate | None:
    return None if row.candidate is None else Candidate(row.candidate, row.candidate_weight)


def _alias(row: Row[Any]) -> ModelAlias:
    return ModelAlias(
        row.name, row.project_id, row.model, _candidate(row), row.previous_model, row.created_at, row.updated_at
    )


def _change(row: Row[Any]) -> AliasChange:
    return AliasChange(
        row.id, row.project_id, row.alias, row.action, row.model, _candidate(row), row.key_id, row.key_name,
        row.created_at,
    )  # fmt: skip


def _models(candidate: Candidate | None) -> dict[str, object]:
    if candidate is None:
        return {"candidate": None, "candidate_weight": None}
    return {"candidate": candidate.model, "candidate_weight": candidate.weight}


async def add(tx: Transaction, alias: ModelAlias) -> bool:
    """False when the project has one of that name already."""
    return await add_if_new(
        tx,
        model_aliases,
        {
            "name": alias.name,
            "project_id": alias.project_id,
            "model": alias.model,
            **_models(alias.candidate),
            "previous_model": alias.previous_model,
            "created_at": alias.created_at,
            "updated_at": alias.updated_at,
        },
    )


async def change(tx: Transaction, alias: ModelAlias) -> None:
    """Writes what the alias stands for. Its row was read with a lock."""
    rows = model_aliases.c
    await tx.connection.execute(
        update(model_aliases)
        .where(rows.project_id == alias.project_id, rows.name == alias.name)
        .values(
            model=alias.model,
            **_models(alias.candidate),
            previous_model=alias.previous_model,
            updated_at=alias.updated_at,
        )
    )


async def find(tx: Transaction, project_id: str, name: str, *, lock: bool = False) -> ModelAlias | None:
    """`lock`: it stays as it is until the commit."""
    rows = model_aliases.c
    query = select(model_aliases).where(rows.project_id == project_id, rows.name == name)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await tx.connection.execute(query)).one_or_none()
    return None if row is None else _alias(row)


async def holding(tx: Transaction, project_id: str, model: str) -> list[str]:
    """Names of the project's aliases that may send a request to the model, by name."""
    rows = model_aliases.c
    query = select(rows.name).where(rows.project_id == project_id, or_(rows.model == model, rows.candidate == model))
    return list((await tx.connection.execute(query.order_by(rows.name))).scalars())


async def is_held(tx: Transaction, model: Model) -> bool:
    """Whether an alias of any project that may call the model may send a request to it."""
    rows, granted = model_aliases.c, checkpoint_permissions.c
    sharing = select(granted.project_id).where(granted.model_name == model.name)
    query = select(rows.name).where(
        or_(rows.project_id == model.project_id, rows.project_id.in_(sharing)),
        or_(rows.model == model.name, rows.candidate == model.name),
    )
    return (await tx.connection.execute(query.limit(1))).first() is not None


async def has_name(tx: Transaction, name: str) -> bool:
    """Whether any project has an alias of that name."""
    query = select(model_aliases.c.name).where(model_aliases.c.name == name).limit(1)
    return (await tx.connection.execute(query)).first() is not None


async def count(tx: Transaction, project_id: str) -> int:
    query = select(func.count()).select_from(model_aliases).where(model_aliases.c.project_id == project_id)
    return int((await tx.connection.execute(query)).scalar_one())


async def names(tx: Transaction, project_id: str) -> list[ModelAlias]:
    """All of the project's, by name: as many as its quota."""
    query = select(model_aliases).where(model_aliases.c.project_id == project_id).order_by(model_aliases.c.name)
    return [_alias(row) for row in await tx.connection.execute(query)]


async def page(tx: Transaction, project_id: str, after: str | None, limit: int) -> list[ModelAlias]:
    """At most `limit`, newest first, older than the one of the name `after`; an unknown `after` gives none."""
    rows = model_aliases.c
    query = select(model_aliases).where(rows.project_id == project_id).order_by(rows.sequence.desc()).limit(limit)
    if after is not None:
        query = query.where(rows.sequence < cursors.place(LISTED, project_id, after))
    return [_alias(row) for row in await tx.connection.execute(query)]


async def remove(tx: Transaction, alias: ModelAlias) -> None:
    rows = model_aliases.c
    await cursors.remove(tx, LISTED, rows.project_id == alias.project_id, rows.name == alias.name)


async def add_change(tx: Transaction, change: AliasChange, kept: int) -> None:
    """Writes a change; of the changes of that name the newest `kept` stay."""
    await tx.connection.execute(
        insert(model_alias_changes).values(
            id=change.id,
            project_id=change.project_id,
            alias=change.alias,
            action=change.action,
            model=change.model,
            **_models(change.candidate),
            key_id=change.key_id,
            key_name=change.key_name,
            created_at=change.created_at,
        )
    )
    rows = model_alias_changes.c
    newest = (
        select(rows.sequence)
        .where(rows.project_id == change.project_id, rows.alias == change.alias)
        .order_by(rows.sequence.desc())
    )
    if (oldest := (await tx.connection.execute(newest.offset(kept).limit(1))).scalar_one_or_none()) is not None:
        await tx.connection.execute(
            delete(model_alias_changes).where(
                rows.project_id == change.project_id, rows.alias == change.alias, rows.sequence <= oldest
            )
        )


async def change_page(
    tx: Transaction, project_id: str, alias: str, after: str | None, limit: int
) -> Sequence[AliasChange]:
    """At most `limit` changes, newest first, older than `after`; an unknown `after` gives none.

    So does one that is not kept any more: those behind it are not kept either.
    """
    rows = model_alias_changes.c
    query = (
        select(model_alias_changes)
        .where(rows.project_id == project_id, rows.alias == alias)
        .order_by(rows.sequence.desc())
        .limit(limit)
    )
    if after is not None:
        cursor = select(rows.sequence).where(rows.id == after, rows.project_id == project_id, rows.alias == alias)
        query = query.where(rows.sequence < cursor.scalar_subquery())
    return [_change(row) for row in await tx.connection.execute(query)]
