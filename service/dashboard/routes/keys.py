"""API keys, for admins: who has one, a new one that is shown once, and an end to one."""

from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.api.web.deps import ContextDep
from service.dashboard.web.messages import Message, back
from service.dashboard.web.pages import UI, page
from service.dashboard.web.visitors import Admin, Posted
from service.operations import keys, sessions

router = APIRouter(prefix="/keys")
NAME_CHARACTERS = 64
KEYS = f"{UI}/keys"


@router.get("")
async def shown(
    request: Request, ctx: ContextDep, admin: Admin, project: str = "", name: str = "", role: str = ""
) -> Response:
    """Every key without its secret, and a new one once. The query fills in what is asked of a new key."""
    projects = {project.id: project.name for project in await sessions.projects(ctx, admin.caller)}
    values = {
        "keys": sorted(await keys.list_keys(ctx), key=lambda key: (key.revoked_at is not None, -key.created_at)),
        "names": projects,
        "own": admin.caller.key_id,
        "given": {"project": project or admin.project, "name": name, "role": role},
    }
    return page(request, "keys.html", admin, values)


@router.post("")
async def create(request: Request, ctx: ContextDep, admin: Admin, form: Posted) -> Response:
    """A new key, which the next page alone shows."""
    project, name = form.get("project", "").strip(), form.get("name", "").strip()
    role = "admin" if form.get("admin") else "project"
    refused = ""
    if not project or len(project) > NAME_CHARACTERS:
        refused = f"Name the project: 1 to {NAME_CHARACTERS} characters."
    elif len(name) > NAME_CHARACTERS:
        refused = f"The key's name may have at most {NAME_CHARACTERS} characters, and has {len(name)}."
    if refused:
        asked = urlencode({"project": project, "name": name, "role": role})
        return back(request, f"{KEYS}?{asked}", Message("refused", refused))
    return back(request, KEYS, Message("key", await keys.create_key(ctx, project, role, name or "key")))


@router.post("/{id}/revoke")
async def revoke(request: Request, ctx: ContextDep, admin: Admin, form: Posted, id: str) -> Response:
    """Ends a key, and the sign-ins with it."""
    revoked = await keys.revoke_key(ctx, id)
    message = Message("done", f"The key {id} is revoked.") if revoked else Message("refused", f"{id} is no active key.")
    return back(request, KEYS, message)
