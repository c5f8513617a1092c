"""Tuned models with what they came from, and the project's own names for models: promoted and rolled back here."""

from dataclasses import dataclass, field

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from service.api.web.deps import ContextDep
from service.dashboard.web.pages import UI, page
from service.dashboard.web.visitors import Posted, Visitor
from service.domain.errors import InvalidRequest, NotFound, QuotaExceeded
from service.installation.context import Context
from service.operations import model_aliases, models
from service.operations.models import TunedModel
from service.operations.sessions import SignedIn

router = APIRouter(prefix="/models")
MODELS_SHOWN = 500
ALIASES_SHOWN = 100
CHANGES_SHOWN = 20


@dataclass
class Node:
    """A model in the tree of what continued what."""

    tuned: TunedModel
    depth: int = 0
    children: list["Node"] = field(default_factory=list)


@router.get("")
async def shown(request: Request, ctx: ContextDep, visitor: Visitor, model: str = "") -> Response:
    """The models and the names; `model` is chosen for a new name."""
    return await _page(request, ctx, visitor, chosen=model)


@router.post("/aliases")
async def create(request: Request, ctx: ContextDep, visitor: Visitor, form: Posted) -> Response:
    """A new name."""
    try:
        await model_aliases.create(ctx, visitor.caller, form.get("name", "").strip(), form.get("model", ""))
    except (InvalidRequest, QuotaExceeded) as error:
        return await _page(request, ctx, visitor, error.message, error.status)
    return _back()


@router.post("/aliases/{name}/{action}")
async def change(request: Request, ctx: ContextDep, visitor: Visitor, form: Posted, name: str, action: str) -> Response:
    """Moves a name to another model, takes the last move back, or ends the name."""
    try:
        match action:
            case "promote":
                await model_aliases.promote(ctx, visitor.caller, name, form.get("model") or None)
            case "rollback":
                await model_aliases.rollback(ctx, visitor.caller, name, form.get("current_model") or None)
            case "delete":
                await model_aliases.delete(ctx, visitor.caller, name)
            case _:
                raise NotFound("There is no such page.")
    except InvalidRequest as error:
        return await _page(request, ctx, visitor, error.message, error.status)
    return _back()


@router.post("/promote")
async def promote(request: Request, ctx: ContextDep, visitor: Visitor, form: Posted) -> Response:
    """Moves a name to a model that a page of a job shows."""
    try:
        await model_aliases.promote(ctx, visitor.caller, form.get("name", ""), form.get("model", ""))
    except InvalidRequest as error:
        return await _page(request, ctx, visitor, error.message, error.status)
    return _back()


@router.post("/delete")
async def delete(request: Request, ctx: ContextDep, visitor: Visitor, form: Posted) -> Response:
    """Deletes a tuned model of the project."""
    try:
        await models.delete(ctx, visitor.caller, form.get("model", ""))
    except InvalidRequest as error:
        return await _page(request, ctx, visitor, error.message, error.status)
    return _back()


async def _page(
    request: Request, ctx: Context, visitor: SignedIn, problem: str = "", status: int = 200, chosen: str = ""
) -> Response:
    found = await models.lineage(ctx, visitor.caller, MODELS_SHOWN)
    aliases = (await model_aliases.page(ctx, visitor.caller, after=None, limit=ALIASES_SHOWN)).items
    names: dict[str, list[str]] = {}
    for alias in aliases:
        for model in alias.models:
            names.setdefault(model, []).append(alias.name)
    values = {
        "nodes": tree(found),
        "aliases": aliases,
        "names": names,
        "bases": list(ctx.catalogue.bases),
        "problem": problem,
        "chosen": chosen,
        "limit": MODELS_SHOWN,
    }
    return page(request, "models.html", visitor, values, status=status)


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


def _back() -> Response:
    return RedirectResponse(f"{UI}/models", status_code=303)
