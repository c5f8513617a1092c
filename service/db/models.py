"""Rows of published models, of the checkpoints that list them, and of the projects that may call them as well.

A deleted name keeps its row as a tombstone.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, insert, or_, select, update

from service.db import cursors, model_aliases
from service.db.connection import Transaction
from service.db.tables import checkpoint_permissions, checkpoints, jobs, models
from service.domain.job import ACTIVE, Checkpoint
from service.domain.model import Model, Permission

_MODEL = [models.c[field.name] for field in fields(Model)]
_PERMISSION = [checkpoint_permissions.c[field.name] for field in fields(Permission)]
_CHECKPOINT = [checkpoints.c[field.name] for field in fields(Checkpoint)]

LISTED_CHECKPOINTS = cursors.Listed(checkpoints, "job_id")
LISTED_PERMISSIONS = cursors.Listed(checkpoint_permissions, "model_name")


def _model(row: Row[Any]) -> Model:
    return Model(**row._mapping)


def _checkpoint(row: Row[Any]) -> Checkpoint:
    return Checkpoint(**row._mapping)


async def add(tx: Transaction, model: Model) -> None:
    """Makes a name public. Names are never reused: a duplicate is an integrity error."""
    await tx.connection.execute(
        insert(models).values({field.name: getattr(model, field.name) for field in fields(Model)})
    )


async def find(tx: Transaction, project_id: str | None, name: str, *, lock: bool = False) -> Model | None:
    """The model of that project, tombstones included; `None` as project for any. `lock`: it stays as it is."""
    query = select(*_MODEL).where(models.c.name == name)
    if project_id is not None:
        query = query.where(models.c.project_id == project_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await tx.connection.execute(query)).one_or_none()
    return None if row is None else _model(row)


async def find_callable(tx: Transaction, project_id: str, name: str) -> Model | None:
    """The living model, if that project trained it or was granted it."""
    granted = select(checkpoint_permissions.c.id).where(
        checkpoint_permissions.c.model_name == models.c.name, checkpoint_permissions.c.project_id == project_id
    )
    query = select(*_MODEL).where(models.c.name == name, models.c.deleted_at.is_(None))
    row = (
        await tx.connection.execute(query.where(or_(models.c.project_id == project_id, granted.exists())))
    ).one_or_none()
    return None if row is None else _model(row)


async def all_callable(tx: Transaction, project_id: str) -> list[Model]:
    """Every living model that the project trained or was granted, oldest first."""
    query = select(*_MODEL).where(_callable(project_id))
    return [_model(row) for row in await tx.connection.execute(query.order_by(models.c.sequence))]


async def parents(tx: Transaction, job_ids: Sequence[str]) -> dict[str, str | None]:
    """What each of these jobs continued; None for a job that started from its base."""
    query = select(jobs.c.id, jobs.c.parent_model).where(jobs.c.id.in_(job_ids))
    return {row.id: row.parent_model for row in await tx.connection.execute(query)}


async def living_of(tx: Transaction, base: str) -> str | None:
    """One living model of the base, of any project."""
    query = select(models.c.name).where(models.c.base == base, models.c.deleted_at.is_(None)).limit(1)
    return (await tx.connection.execute(query)).scalar_one_or_none()


async def newest_callable(tx: Transaction, project_id: str, limit: int) -> list[Model]:
    """At most `limit` of these, newest first."""
    query = select(*_MODEL).where(_callable(project_id)).order_by(models.c.sequence.desc()).limit(limit)
    return [_model(row) for row in await tx.connection.execute(query)]


def _callable(project_id: str) -> ColumnElement[bool]:
    """For lists: the names of both kinds come from indexes, where an "or" would read every model."""
    own = select(models.c.name).where(models.c.project_id == project_id)
    granted = select(checkpoint_permissions.c.model_name).where(checkpoint_permissions.c.project_id == project_id)
    return and_(models.c.deleted_at.is_(None), models.c.name.in_(own.union_all(granted)))


async def mark_deleted(tx: Transaction, name: str) -> bool:
    """Deletes the model and its line in the checkpoints list; False when it was already deleted."""
    now = int(time.time())
    dead = update(models).where(models.c.name == name, models.c.deleted_at.is_(None)).values(deleted_at=now)
    if (await tx.connection.execute(dead)).rowcount == 0:
        return False
    await tx.connection.execute(update(checkpoints).where(checkpoints.c.model_name == name).values(pruned_at=now))
    return True


async def delete_old_checkpoints(tx: Transaction, job_id: str, kept: int) -> None:
    """Marks the models of the job's checkpoints as deleted, except the newest `kept` and those that an alias holds."""
    living = select(checkpoints.c.model_name).where(checkpoints.c.job_id == job_id, checkpoints.c.pruned_at.is_(None))
    beyond = living.order_by(checkpoints.c.sequence.desc()).offset(kept)
    for name in (await tx.connection.execute(beyond)).scalars().all():
        model = await find(tx, None, name, lock=True)  # whoever lets an alias stand for it locks it too
        if model is not None and not await model_aliases.is_held(tx, model):
            await mark_deleted(tx, name)


async def unswept(tx: Transaction, limit: int) -> list[str]:
    """Names of deleted models whose artifacts are still in storage and that no active job continues."""
    continued = select(jobs.c.id).where(jobs.c.status.in_(ACTIVE), jobs.c.parent_model == models.c.name)
    query = select(models.c.name).where(models.c.deleted_at.is_not(None), models.c.swept_at.is_(None))
    return list((await tx.connection.execute(query.where(~continued.exists()).limit(limit))).scalars())


async def known(tx: Transaction, names: Sequence[str]) -> set[str]:
    """Those of the names that are models', tombstones too: their artifacts go by `unswept`."""
    return set((await tx.connection.execute(select(models.c.name).where(models.c.name.in_(names)))).scalars())


async def mark_swept(tx: Transaction, name: str) -> None:
    await tx.connection.execute(update(models).where(models.c.name == name).values(swept_at=int(time.time())))


async def add_checkpoint(tx: Transaction, checkpoint: Checkpoint) -> None:
    """One line of the checkpoints list; a job has one per step."""
    values = {field.name: getattr(checkpoint, field.name) for field in fields(Checkpoint)}
    await tx.connection.execute(insert(checkpoints).values(values))


async def add_final_checkpoint(tx: Transaction, checkpoint: Checkpoint) -> None:
    """The line of the job's result. Where the result is an earlier step's, that step may have a line already.

    Then a callable one stays, whose model has the same weights; one that was pruned gives way.
    """
    rows = checkpoints.c
    same_step = and_(rows.job_id == checkpoint.job_id, rows.step == checkpoint.step)
    await cursors.remove(tx, LISTED_CHECKPOINTS, same_step, rows.pruned_at.is_not(None))
    if (await tx.connection.execute(select(rows.id).where(same_step))).first() is None:
        await add_checkpoint(tx, checkpoint)


async def find_checkpoint(tx: Transaction, job_id: str, step: int) -> Checkpoint | None:
    query = select(*_CHECKPOINT).where(checkpoints.c.job_id == job_id, checkpoints.c.step == step)
    row = (await tx.connection.execute(query)).one_or_none()
    return None if row is None else _checkpoint(row)


async def checkpoint_page(tx: Transaction, job_id: str, after: str | None, limit: int) -> list[Checkpoint]:
    """At most `limit` living checkpoints, newest first, older than `after`; an unknown `after` gives none."""
    query = (
        select(*_CHECKPOINT)
        .where(checkpoints.c.job_id == job_id, checkpoints.c.pruned_at.is_(None))
        .order_by(checkpoints.c.sequence.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(checkpoints.c.sequence < cursors.place(LISTED_CHECKPOINTS, job_id, after))
    return [_checkpoint(row) for row in await tx.connection.execute(query)]


def _permission(row: Row[Any]) -> Permission:
    return Permission(**row._mapping)


async def add_permission(tx: Transaction, permission: Permission) -> None:
    """Writes a new permission; a project has one per model."""
    await tx.connection.execute(insert(checkpoint_permissions).values(asdict(permission)))


async def permissions_of(tx: Transaction, model_name: str, project_ids: Sequence[str]) -> dict[str, Permission]:
    """What these projects have for the model already, by project."""
    query = select(*_PERMISSION).where(
        checkpoint_permissions.c.model_name == model_name, checkpoint_permissions.c.project_id.in_(project_ids)
    )
    return {row.project_id: _permission(row) for row in await tx.connection.execute(query)}


async def permission_page(
    tx: Transaction, model_name: str, project_id: str | None, after: str | None, limit: int, *, ascending: bool
) -> list[Permission]:
    """At most `limit` permissions of the model beyond `after`; an unknown `after` gives none."""
    rows = checkpoint_permissions.c
    query = select(*_PERMISSION).where(rows.model_name == model_name)
    if project_id is not None:
        query = query.where(rows.project_id == project_id)
    if after is not None:
        cursor = cursors.place(LISTED_PERMISSIONS, model_name, after)
        query = query.where(rows.sequence > cursor if ascending else rows.sequence < cursor)
    order = rows.sequence if ascending else rows.sequence.desc()
    return [_permission(row) for row in await tx.connection.execute(query.order_by(order).limit(limit))]


async def remove_permission(tx: Transaction, model_name: str, id: str) -> bool:
    """False when the model has no such permission."""
    rows = checkpoint_permissions.c
    return await cursors.remove(tx, LISTED_PERMISSIONS, rows.id == id, rows.model_name == model_name) == 1
