"""Tuned models with what they came from, and the project's own names for models: promoted and rolled back here."""

from dataclasses import dataclass, field
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.api.web.deps import ContextDep
from service.dashboard.web.messages import then_back
from service.dashboard.web.pages import UI, page
from service.dashboard.web.visitors import Posted, Visitor
from service.domain.errors import NotFound
from service.installation.context import Context
from service.operations import model_aliases, models
from service.operations.models import TunedModel
from service.operations.sessions import SignedIn

router = APIRouter(prefix="/models")
MODELS_SHOWN = 500
ALIASES_SHOWN = 100
MODELS = f"{UI}/models"


@dataclass
class Node:
    """A model in the tree of what continued what."""

    tuned: TunedModel
    depth: int = 0
    children: list["Node"] = field(default_factory=list)


@router.get("")
async def shown(request: Request, ctx: ContextDep, visitor: Visitor, model: str = "", name: str = "") -> Response:
    """The models and the names; `name` and `model` are filled in for a new name."""
    found = await models.lineage(ctx, visitor.caller, MODELS_SHOWN)
    aliases = (await model_aliases.page(ctx, visitor.caller, after=None, limit=ALIASES_SHOWN)).items
    names: dict[str, list[str]] = {}
    for alias in aliases:
        for stands_for in alias.models:
            names.setdefault(stands_for, []).append(alias.name)
    values = {
        "nodes": tree(found),
        "aliases": aliases,
        "names": names,
        "bases": list(ctx.catalogue.bases),
        "chosen": model,
        "new_name": name,
        "limit": MODELS_SHOWN,
    }
    return page(request, "models.html", visitor, values)


@router.post("/aliases")
async def create(request: Request, ctx: ContextDep, visitor: Visitor, form: Posted) -> Response:
    """A new name."""
    name, model = form.get("name", "").strip(), form.get("model", "")
    made = model_aliases.create(ctx, visitor.caller, name, model)
    refused = f"{MODELS}?{urlencode({'name': name, 'model': model})}"
    return await then_back(request, MODELS, made, f"The name {name} stands for {model}.", refused)


@router.post("/aliases/{name}/{action}")
async def change(request: Request, ctx: ContextDep, visitor: Visitor, form: Posted, name: str, action: str) -> Response:
    """Moves a name to another model, takes the last move back, or ends the name."""
    match action:
        case "promote":
            return await _promote(request, ctx, visitor, name, form.get("model", ""))
        case "rollback":
            moved = model_aliases.rollback(ctx, visitor.caller, name, form.get("current_model") or None)
            return await then_back(request, MODELS, moved, f"The name {name} is rolled back.")
        case "delete":
            deleted = model_aliases.delete(ctx, visitor.caller, name)
            return await then_back(request, MODELS, deleted, f"The name {name} is deleted.")
        case _:
            raise NotFound("There is no such page.")


@router.post("/promote")
async def promote(request: Request, ctx: ContextDep, visitor: Visitor, form: Posted) -> Response:
    """Moves a name to a model that a page of a job shows."""
    return await _promote(request, ctx, visitor, form.get("name", ""), form.get("model", ""))


@router.post("/delete")
async def delete(request: Request, ctx: ContextDep, visitor: Visitor, form: Posted) -> Response:
    """Deletes a tuned model of the project."""
    name = form.get("model", "")
    return await then_back(request, MODELS, models.delete(ctx, visitor.caller, name), f"{name} is deleted.")


async def _promote(request: Request, ctx: Context, visitor: SignedIn, name: str, model: str) -> Response:
    moved = model_aliases.promote(ctx, visitor.caller, name, model or None)
    return await then_back(request, MODELS, moved, f"The name {name} stands for {model or 'its candidate'} now.")


def tree(found: list[TunedModel]) -> list[Node]:
    """Depth first: each model above those that continue it; those of one parent in the order of `found`."""
    nodes = {tuned.model.name: Node(tuned) for tuned in found}
    roots: list[Node] = []
    for node in nodes.values():
        parent = nodes.get(node.tuned.parent or "")
        (roots if parent is None else parent.children).append(node)
    ordered: list[Node] = []
    left = roots[::-1]
    while left:
        node = left.pop()
        ordered.append(node)
        for child in reversed(node.children):
            child.depth = node.depth + 1
            left.append(child)
    return ordered
