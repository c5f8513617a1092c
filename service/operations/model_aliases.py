"""Model aliases: a project's own names for models, which it moves. Each move is one transaction, with who and when.

A move is in force at the next request of every process: what a request has read is kept in memory only until anybody
commits (`service.db.until_commit`). Aliases of bases, which are the operator's, are in `service.operations.aliases`.
"""

import time
from dataclasses import dataclass, replace

from service.db import keys, model_aliases, models
from service.db.connection import Transaction
from service.domain import ids
from service.domain.errors import IllegalTransition, InvalidRequest, NotFound, QuotaExceeded
from service.domain.model import MODEL_PREFIX
from service.domain.model_alias import ALIAS_LIMIT, Action, AliasChange, Candidate, ModelAlias, is_alias_name
from service.installation.context import Context
from service.operations import aliases
from service.operations.keys import Caller
from service.operations.paging import Page, cut

CHANGES_KEPT = 1000  # of one name


@dataclass(frozen=True)
class AliasUpdate:
    """What to change; `ends_canary`: there shall be no candidate any more."""

    model: str | None = None
    candidate: Candidate | None = None
    ends_canary: bool = False


async def create(ctx: Context, caller: Caller, name: str, model: str, candidate: Candidate | None = None) -> ModelAlias:
    """Writes a new alias. Raises InvalidRequest for a name that is taken or cannot be one, and for a missing model."""
    _check_name(name)
    async with ctx.database.transaction() as tx:
        if await aliases.find_base(ctx, tx, name) is not None:
            raise InvalidRequest(
                f"'{name}' is a base of this installation, or an alias of one: choose another name.", param="name"
            )
        if await model_aliases.count(tx, caller.project_id) >= ctx.settings.project_aliases:
            raise QuotaExceeded(
                f"Your project has {ctx.settings.project_aliases:,} model aliases, which is as many as it may have. "
                "Please delete some, or ask for a higher LUTHIER_PROJECT_ALIASES."
            )
        now = int(time.time())
        stands_for = await _find_model(ctx, tx, caller, model, "model")
        checked = await _checked(ctx, tx, caller, stands_for, candidate)
        alias = ModelAlias(name, caller.project_id, stands_for, checked, None, now, now)
        if not await model_aliases.add(tx, alias):
            raise InvalidRequest(
                f"Your project has a model alias '{name}' already: update it, or promote a model to it.", param="name"
            )
        await _record(tx, caller, alias, "created")
    return alias


async def retrieve(ctx: Context, caller: Caller, name: str) -> ModelAlias:
    """One alias. Raises NotFound."""
    async with ctx.database.reading() as tx:
        return await _find(tx, caller, name)


async def page(ctx: Context, caller: Caller, *, after: str | None, limit: int) -> Page[ModelAlias]:
    """The project's aliases, newest first, older than the one of the name `after`."""
    async with ctx.database.reading() as tx:
        return cut(await model_aliases.page(tx, caller.project_id, after, limit + 1), limit)


async def update(ctx: Context, caller: Caller, name: str, asked: AliasUpdate) -> ModelAlias:
    """Moves the alias, or begins, changes or ends its canary. Raises NotFound or InvalidRequest."""
    async with ctx.database.transaction() as tx:
        alias = await _find(tx, caller, name, lock=True)
        model = alias.model if asked.model is None else await _find_model(ctx, tx, caller, asked.model, "model")
        candidate = None if asked.ends_canary else (asked.candidate or alias.candidate)
        moved = _moved(alias, model, await _checked(ctx, tx, caller, model, candidate))
        return await _write(tx, caller, alias, moved, "updated")


async def promote(ctx: Context, caller: Caller, name: str, model: str | None) -> ModelAlias:
    """Moves the alias to `model`, or without one to its candidate; a canary ends. Raises NotFound or InvalidRequest."""
    async with ctx.database.transaction() as tx:
        alias = await _find(tx, caller, name, lock=True)
        if model is None and alias.candidate is None:
            raise InvalidRequest(f"'{name}' has no candidate: say which model to promote, in 'model'.", param="model")
        target = model if model is not None else alias.models[-1]
        stands_for = await _find_model(ctx, tx, caller, target, "model")
        return await _write(tx, caller, alias, _moved(alias, stands_for, None), "promoted")


async def rollback(ctx: Context, caller: Caller, name: str, current_model: str | None = None) -> ModelAlias:
    """Takes the last move back: ends a canary if there is one, else returns to the model before.

    With `current_model`, only while the alias stands for that: sent twice, it is done once. Raises NotFound,
    IllegalTransition, or InvalidRequest where the model before does not exist any more.
    """
    async with ctx.database.transaction() as tx:
        alias = await _find(tx, caller, name, lock=True)
        if current_model is not None and alias.model != current_model:
            raise IllegalTransition(
                f"'{name}' stands for {alias.model}, not for {current_model}: it was moved meanwhile.",
                param="current_model",
            )
        if alias.candidate is not None:
            return await _write(tx, caller, alias, _moved(alias, alias.model, None), "rolled_back")
        if alias.previous_model is None:
            raise IllegalTransition(f"'{name}' has stood for {alias.model} only: there is nothing to return to.")
        before = await _find_model(ctx, tx, caller, alias.previous_model, None)
        return await _write(tx, caller, alias, _moved(alias, before, None), "rolled_back")


async def delete(ctx: Context, caller: Caller, name: str) -> None:
    """Ends the alias; its history stays, and its name may be used again. Raises NotFound."""
    async with ctx.database.transaction() as tx:
        alias = await _find(tx, caller, name, lock=True)
        await model_aliases.remove(tx, alias)
        await _record(tx, caller, alias, "deleted")


async def history(ctx: Context, caller: Caller, name: str, *, after: str | None, limit: int) -> Page[AliasChange]:
    """The changes of the alias of that name, newest first, of a deleted one too. Raises NotFound if it never was."""
    async with ctx.database.reading() as tx:
        found = await model_aliases.change_page(tx, caller.project_id, name, after, limit + 1)
        if not found and not await model_aliases.change_page(tx, caller.project_id, name, None, 1):
            raise _missing(name)
        return cut(found, limit)


def _check_name(name: str) -> None:
    if name.startswith(MODEL_PREFIX):
        raise InvalidRequest(
            f"'{name}' is a tuned model's name: an alias is a name of your own, such as support.", param="name"
        )
    if not is_alias_name(name):
        raise InvalidRequest(
            f"'{name[:ALIAS_LIMIT]}' cannot be a model alias: write at most {ALIAS_LIMIT} letters, digits, '.', '_' "
            "and '-', beginning with a letter or digit.",
            param="name",
        )


async def _find(tx: Transaction, caller: Caller, name: str, *, lock: bool = False) -> ModelAlias:
    alias = await model_aliases.find(tx, caller.project_id, name, lock=lock)
    if alias is None:
        raise _missing(name)
    return alias


def _missing(name: str) -> NotFound:
    return NotFound(f"No such model alias: {name}", param="name", code="model_alias_not_found")


async def _find_model(ctx: Context, tx: Transaction, caller: Caller, name: str, param: str | None) -> str:
    """The id of the model of that name, which stays undeleted until the commit. Raises InvalidRequest."""
    if (named := await aliases.find_base(ctx, tx, name)) is not None:
        return named.base.id
    if await models.find_callable(tx, caller.project_id, name) is not None:
        locked = await models.find(tx, None, name, lock=True)
        if locked is not None and locked.deleted_at is None:
            return name
    if await model_aliases.find(tx, caller.project_id, name) is not None:
        raise InvalidRequest(f"'{name}' is a model alias itself: name the model that it stands for.", param=param)
    raise InvalidRequest(
        f"The model '{name}' does not exist or you do not have access to it.", param=param, code="model_not_found"
    )


async def _checked(
    ctx: Context, tx: Transaction, caller: Caller, model: str, candidate: Candidate | None
) -> Candidate | None:
    if candidate is None:
        return None
    found = await _find_model(ctx, tx, caller, candidate.model, "candidate.model")
    if found == model:
        raise InvalidRequest(
            f"The candidate is the model itself, {model}: name another one, or send a candidate of null.",
            param="candidate.model",
        )
    return replace(candidate, model=found)


def _moved(alias: ModelAlias, model: str, candidate: Candidate | None) -> ModelAlias:
    previous = alias.previous_model if model == alias.model else alias.model
    return replace(
        alias, model=model, candidate=candidate, previous_model=previous, updated_at=max(alias.updated_at, _now())
    )


async def _write(tx: Transaction, caller: Caller, before: ModelAlias, after: ModelAlias, action: Action) -> ModelAlias:
    """What changes nothing is no change: it is neither written nor recorded."""
    if after.models == before.models and after.candidate == before.candidate:
        return before
    await model_aliases.change(tx, after)
    await _record(tx, caller, after, action)
    return after


async def _record(tx: Transaction, caller: Caller, alias: ModelAlias, action: Action) -> None:
    change = AliasChange(
        id=ids.alias_change_id(),
        project_id=caller.project_id,
        alias=alias.name,
        action=action,
        model=alias.model,
        candidate=alias.candidate,
        key_id=caller.key_id,
        key_name=await keys.name_of(tx, caller.key_id),
        created_at=_now(),
    )
    await model_aliases.add_change(tx, change, CHANGES_KEPT)


def _now() -> int:
    return int(time.time())
