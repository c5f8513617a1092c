"""Models that a project may call: the bases of the catalogue, its own tuned ones, and those that it was granted.

When a completion is requested, the name of the model is resolved here to what the engine needs. A permission has effect
at the grantee's next request, and so has its revocation: a name's meaning is kept in memory until the next commit only.
"""

import difflib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from service.db import keys, model_aliases, models
from service.db.connection import Transaction
from service.domain import ids
from service.domain.errors import Forbidden, InvalidRequest, ModelNotFound, NotFound, Unavailable
from service.domain.model import Model, Permission, TaskName
from service.domain.model_alias import ModelAlias, choose
from service.gateway.names import Meaning, ResolvedModel
from service.installation.context import Context
from service.operations import aliases
from service.operations.keys import Caller
from service.operations.paging import Page, cut
from service.recipes.base import BASE_NAME_LIMIT, Base
from service.recipes.tasks import TASKS, BaseKind, encoder_alone, wrong_endpoint

BASE_OWNER = "luthier"
NAMES_SHOWN = 10  # of what exists, by the error about what does not
NAMES_COMPARED = 100


@dataclass(frozen=True)
class TunedModel:
    """A tuned model; `parent` is the one that its job continued, None where that started from the base, and where the
    model was imported."""

    model: Model
    parent: str | None


@dataclass(frozen=True)
class ModelView:
    """A callable model as the API lists it; a base's age is unknown (0)."""

    id: str
    created_at: int
    owner: str
    kind: BaseKind | None  # of its base; None for a base that is not in the catalogue any more
    task: TaskName | None  # what it is for; None for a model alias
    imported: bool = False  # trained elsewhere


async def list_all(ctx: Context, caller: Caller) -> list[ModelView]:
    """Every base, under its id and its aliases, then tuned models, oldest first, then model aliases by name."""
    async with ctx.database.reading() as tx:
        tuned = await models.all_callable(tx, caller.project_id)
        bases = await aliases.names_and_bases(ctx, tx)
        names = {name for name, _ in bases}
        moving = [alias for alias in await model_aliases.names(tx, caller.project_id) if alias.name not in names]
    return [
        *(_base_view(name, base) for name, base in bases),
        *(_view(ctx, caller, model) for model in tuned),
        *(_alias_view(caller, alias) for alias in moving),
    ]


async def lineage(ctx: Context, caller: Caller, limit: int) -> list[TunedModel]:
    """The newest tuned models that the caller may call, newest first, each with what its training started from."""
    async with ctx.database.reading() as tx:
        found = await models.newest_callable(tx, caller.project_id, limit)
        parents = await models.parents(tx, sorted({model.job_id for model in found if model.job_id is not None}))
    return [TunedModel(model, parents.get(model.job_id or "")) for model in found]


async def retrieve(ctx: Context, caller: Caller, name: str) -> ModelView:
    """One callable model. Raises ModelNotFound, for another project's too, unless it was granted."""
    if (named := aliases.in_catalogue(ctx.catalogue, name)) is not None:
        return _base_view(name, named.base)
    async with ctx.database.reading() as tx:
        if (named := await aliases.find_base(ctx, tx, name)) is not None:
            return _base_view(name, named.base)
        if (alias := await model_aliases.find(tx, caller.project_id, name)) is not None:
            return _alias_view(caller, alias)
        return _view(ctx, caller, await _find(ctx, tx, caller, name))


async def delete(ctx: Context, caller: Caller, name: str) -> None:
    """Deletes one of the project's own tuned models permanently.

    Raises ModelNotFound, and Forbidden for a base, an alias and what another project has only granted.
    """
    async with ctx.database.transaction() as tx:
        if await aliases.find_base(ctx, tx, name) is not None:
            raise Forbidden(
                f"The model '{name}' is a base model of this installation: only your own fine-tuned models can be "
                "deleted.",
                param="model",
            )
        if await model_aliases.find(tx, caller.project_id, name) is not None:
            raise Forbidden(
                f"'{name}' is a model alias: DELETE /v1/model_aliases/{name} ends it, and the models that it stood for "
                "stay.",
                param="model",
            )
        model = await models.find(tx, caller.project_id, name, lock=True)
        if model is not None and (held_by := await model_aliases.holding(tx, caller.project_id, name)):
            raise InvalidRequest(
                f"The model '{name}' cannot be deleted: the model alias '{held_by[0]}' may send requests to it. Move "
                "or delete the alias first.",
                param="model",
                code="model_in_use",
            )
        if model is None and await models.find_callable(tx, caller.project_id, name) is not None:
            raise Forbidden(f"'{name}' is another project's: your project may call it, not delete it.", param="model")
        if model is None or not await models.mark_deleted(tx, name):
            raise await _not_found(ctx, tx, caller, name)


async def resolve_for_inference(ctx: Context, caller: Caller, name: str, end_user: str | None = None) -> ResolvedModel:
    """Resolves an id, an alias of a base, a model alias or a tuned model's name to the name for engines.

    `end_user` is what the request says about who asks: it decides between the two models of an alias. Raises
    ModelNotFound or Unavailable.
    """
    if (named := aliases.in_catalogue(ctx.catalogue, name)) is not None:
        return _resolved(named.base)
    meaning = await ctx.names.find((caller.project_id, name), partial(_read_meaning, ctx, caller, name))
    if meaning.alias is None:
        assert meaning.model is not None
        return meaning.model
    role = choose(meaning.alias, end_user)
    candidate = meaning.alias.candidate
    if role == "model" or candidate is None:
        served, target = meaning.model, meaning.alias.model
    else:
        served, target = meaning.candidate, candidate.model
    if served is None:
        raise ModelNotFound(target, alias=name)
    return replace(served, alias=name, role=role)


def check_endpoint(name: str, model: ResolvedModel, endpoint: str) -> None:
    """Raises InvalidRequest where models of that task are not called at `endpoint`, a path without its /v1/."""
    task = TASKS[model.task]
    if f"/v1/{endpoint}" in task.endpoints:
        return
    is_base = model.tuning is None
    raise encoder_alone(name) if is_base and task.name == "embed" else wrong_endpoint(name, task)


async def _read_meaning(ctx: Context, caller: Caller, name: str) -> Meaning:
    async with ctx.database.reading() as tx:
        return await _meaning(ctx, tx, caller, name)


async def _meaning(ctx: Context, tx: Transaction, caller: Caller, name: str) -> Meaning:
    """What the database says about the name. Raises ModelNotFound or Unavailable."""
    if (named := await aliases.find_base(ctx, tx, name)) is not None:
        return Meaning(_resolved(named.base))
    if (alias := await model_aliases.find(tx, caller.project_id, name)) is None:
        return Meaning(_tuned(ctx, await _find(ctx, tx, caller, name)))
    model = await _resolved_target(ctx, tx, caller, alias.model)
    if alias.candidate is None:
        return Meaning(model, alias)
    return Meaning(model, alias, await _resolved_target(ctx, tx, caller, alias.candidate.model))


async def _resolved_target(ctx: Context, tx: Transaction, caller: Caller, name: str) -> ResolvedModel | None:
    """What an alias stands for; None where the base has left the catalogue, or a granted model has gone."""
    if (named := aliases.in_catalogue(ctx.catalogue, name)) is not None:
        return _resolved(named.base)
    model = await models.find_callable(tx, caller.project_id, name)
    return None if model is None else _tuned(ctx, model)


async def grant(ctx: Context, caller: Caller, model: str, project_ids: Sequence[str]) -> list[Permission]:
    """Lets these projects call the model, in this order; one that already may keeps its permission.

    Raises NotFound for a model that is not the caller's to grant, InvalidRequest for an unknown project.
    """
    async with ctx.database.transaction() as tx:
        if await _find_grantable(tx, caller, model, lock=True) is None:
            raise NotFound(f"No such checkpoint: {model}", param="fine_tuned_model_checkpoint", code="model_not_found")
        await _check_projects(tx, project_ids)
        granted = await models.permissions_of(tx, model, project_ids)
        for project_id in project_ids:
            if project_id not in granted:
                granted[project_id] = Permission(ids.permission_id(), model, project_id, int(time.time()))
                await models.add_permission(tx, granted[project_id])
    return [granted[project_id] for project_id in dict.fromkeys(project_ids)]


async def permission_page(
    ctx: Context, caller: Caller, model: str, *, project_id: str | None, after: str | None, limit: int, ascending: bool
) -> Page[Permission]:
    """The model's permissions by age, beyond `after`; none for a model that is not the caller's to grant."""
    async with ctx.database.reading() as tx:
        if await _find_grantable(tx, caller, model) is None:
            return Page([], has_more=False)
        return cut(await models.permission_page(tx, model, project_id, after, limit + 1, ascending=ascending), limit)


async def revoke(ctx: Context, caller: Caller, model: str, id: str) -> None:
    """Revokes a permission. Raises NotFound."""
    async with ctx.database.transaction() as tx:
        if await _find_grantable(tx, caller, model) is None or not await models.remove_permission(tx, model, id):
            raise NotFound(f"No such permission of the checkpoint {model}: {id}", param="permission_id")


async def _find(ctx: Context, tx: Transaction, caller: Caller, name: str) -> Model:
    model = await models.find_callable(tx, caller.project_id, name)
    if model is None:
        raise await _not_found(ctx, tx, caller, name)
    return model


async def _not_found(ctx: Context, tx: Transaction, caller: Caller, name: str) -> ModelNotFound:
    """The error, which names what this caller may call: the nearest to `name`, bases, newest models."""
    tuned = [model.name for model in await models.newest_callable(tx, caller.project_id, NAMES_COMPARED)]
    moving = [alias.name for alias in await model_aliases.names(tx, caller.project_id)]
    names = [*await aliases.base_names(ctx, tx), *moving, *tuned]
    near = difflib.get_close_matches(name[:BASE_NAME_LIMIT], names, n=3)
    return ModelNotFound(name, list(dict.fromkeys([*near, *names]))[:NAMES_SHOWN], total=len(names))


def _tuned(ctx: Context, model: Model) -> ResolvedModel:
    base = ctx.catalogue.find(model.base)
    if base is None:
        raise Unavailable(f"The base of the model '{model.name}' is not in the catalogue any more.", param="model")
    return ResolvedModel(model.name, model.base, model.tuning, base.serving, model.task)


def _resolved(base: Base) -> ResolvedModel:
    return ResolvedModel(base.id, base.id, None, base.serving, _task(base))


def _task(base: Base) -> TaskName:
    """What a base is for by itself: an encoder writes nothing and has no labels of its own, but vectors."""
    return "embed" if base.kind == "encoder" else "generate"


def _base_view(name: str, base: Base) -> ModelView:
    return ModelView(name, 0, BASE_OWNER, base.kind, _task(base))


def _view(ctx: Context, caller: Caller, model: Model) -> ModelView:
    base = ctx.catalogue.find(model.base)
    kind = None if base is None else base.kind
    imported = model.import_id is not None
    return ModelView(model.name, model.created_at, caller.organization, kind, model.task, imported)


def _alias_view(caller: Caller, alias: ModelAlias) -> ModelView:
    return ModelView(alias.name, alias.created_at, caller.organization, None, None)


async def _find_grantable(tx: Transaction, caller: Caller, name: str, *, lock: bool = False) -> Model | None:
    """The living model, if it is the caller's to grant. `lock`: of two grants at once, one sees the other's."""
    model = await models.find(tx, None if caller.role == "admin" else caller.project_id, name, lock=lock)
    return None if model is None or model.deleted_at is not None else model


async def _check_projects(tx: Transaction, project_ids: Sequence[str]) -> None:
    known = await keys.known_projects(tx, project_ids)
    unknown = [id for id in project_ids if id not in known]
    if unknown:
        raise InvalidRequest(f"No such project: {', '.join(unknown)}.", param="project_ids")
