"""Models that a project may call: the bases of the catalogue, its own tuned ones, and those that it was granted.

In the journey of a completion this is where a name becomes what an engine is asked for.
"""

from dataclasses import dataclass

from service.db import models
from service.db.connection import Transaction
from service.domain.errors import Forbidden, ModelNotFound, Unavailable
from service.domain.model import Model
from service.installation.context import Context
from service.operations.keys import Caller
from service.recipes.base import Serving

BASE_OWNER = "luthier"


@dataclass(frozen=True)
class ModelView:
    """A callable model as the API lists it; a base's age is not known (0)."""

    id: str
    created_at: int
    owner: str


@dataclass(frozen=True)
class ResolvedModel:
    """What to ask an engine for, and what the engines of its base can do; `tuning` is None for a base."""

    name_for_engine: str
    base_id: str
    tuning: str | None
    serving: Serving


async def list_all(ctx: Context, caller: Caller) -> list[ModelView]:
    """Every base, under its id and its aliases, then tuned models, oldest first."""
    async with ctx.database.reading() as tx:
        tuned = await models.all_callable(tx, caller.project_id)
    names = [name for base in ctx.catalogue.bases.values() for name in (base.id, *base.aliases)]
    return [*(_base_view(name) for name in names), *(_view(caller, model) for model in tuned)]


async def retrieve(ctx: Context, caller: Caller, name: str) -> ModelView:
    """One callable model. Raises ModelNotFound, for another project's too, unless it was granted."""
    if ctx.catalogue.find(name) is not None:
        return _base_view(name)
    async with ctx.database.reading() as tx:
        return _view(caller, await _find(tx, caller, name))


async def delete(ctx: Context, caller: Caller, name: str) -> None:
    """Deletes one of the project's own tuned models, for ever. Raises ModelNotFound, or Forbidden for a base."""
    if ctx.catalogue.find(name) is not None:
        raise Forbidden(
            f"The model '{name}' is a base model of this installation: only your own fine-tuned models can be deleted.",
            param="model",
        )
    async with ctx.database.transaction() as tx:
        model = await models.find(tx, caller.project_id, name)
        if model is None or not await models.bury(tx, name):
            raise ModelNotFound(name)


async def resolve_for_inference(ctx: Context, caller: Caller, name: str) -> ResolvedModel:
    """Turns an id, an alias or a tuned model's name into what engines know. Raises ModelNotFound or Unavailable."""
    base = ctx.catalogue.find(name)
    if base is not None:
        return ResolvedModel(base.id, base.id, None, base.serving)
    async with ctx.database.reading() as tx:
        model = await _find(tx, caller, name)
    base = ctx.catalogue.find(model.base)
    if base is None:
        raise Unavailable(f"The base of the model '{name}' is not in the catalogue any more.", param="model")
    return ResolvedModel(model.name, model.base, model.tuning, base.serving)


async def _find(tx: Transaction, caller: Caller, name: str) -> Model:
    model = await models.find_callable(tx, caller.project_id, name)
    if model is None:
        raise ModelNotFound(name)
    return model


def _base_view(name: str) -> ModelView:
    return ModelView(name, 0, BASE_OWNER)


def _view(caller: Caller, model: Model) -> ModelView:
    return ModelView(model.name, model.created_at, caller.organization)
