"""API keys, for admins: who has one, a new one that is shown once, and an end to one."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from service.api.web.deps import ContextDep
from service.dashboard.web.pages import UI, page
from service.dashboard.web.visitors import Admin, Posted
from service.domain.errors import NotFound
from service.installation.context import Context
from service.operations import keys, sessions
from service.operations.sessions import SignedIn

router = APIRouter(prefix="/keys")
NAME_CHARACTERS = 64


@router.get("")
async def shown(request: Request, ctx: ContextDep, admin: Admin) -> Response:
    """Every key without its secret."""
    return await _page(request, ctx, admin)


@router.post("")
async def create(request: Request, ctx: ContextDep, admin: Admin, form: Posted) -> Response:
    """A new key, which this page alone shows."""
    project = form.get("project", "").strip()
    if not project or len(project) > NAME_CHARACTERS:
        problem = f"Name the project: 1 to {NAME_CHARACTERS} characters."
        return await _page(request, ctx, admin, problem=problem)
    role = "admin" if form.get("admin") else "project"
    name = form.get("name", "").strip()[:NAME_CHARACTERS] or "key"
    return await _page(request, ctx, admin, new=await keys.create_key(ctx, project, role, name))


@router.post("/{id}/revoke")
async def revoke(ctx: ContextDep, admin: Admin, form: Posted, id: str) -> Response:
    """Ends a key, and the sign-ins with it."""
    if not await keys.revoke_key(ctx, id):
        raise NotFound(f"There is no active key '{id}'.")
    return RedirectResponse(f"{UI}/keys", status_code=303)


async def _page(request: Request, ctx: Context, admin: SignedIn, *, new: str = "", problem: str = "") -> Response:
    projects = {project.id: project.name for project in await sessions.projects(ctx, admin.caller)}
    values = {
        "keys": sorted(await keys.list_keys(ctx), key=lambda key: (key.revoked_at is not None, -key.created_at)),
        "names": projects,
        "new": new,
        "problem": problem,
        "own": admin.caller.key_id,
    }
    return page(request, "keys.html", admin, values, status=400 if problem else 200)
