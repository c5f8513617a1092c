"""Sign-ins to the dashboard: a key becomes a token that a browser keeps, for a while and until the key is revoked.

The database stores the token's SHA-256 only. An admin's sign-in may act in any project, one at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.db import keys as stored_keys
from service.db import sessions
from service.db.connection import Transaction
from service.db.keys import Project
from service.db.sessions import Session
from service.domain import ids
from service.domain.errors import Forbidden, NotFound, Unauthenticated
from service.installation.context import Context
from service.operations import keys
from service.operations.keys import Caller, sha256_of

__all__ = ["Project", "SignedIn", "find", "projects", "select_project", "sign_in", "sign_out"]


@dataclass(frozen=True)
class SignedIn:
    """Who looks at a page: the caller, and what the page calls the key and its project."""

    caller: Caller
    key: str
    project: str
    expires_at: int

    @property
    def is_admin(self) -> bool:
        return self.caller.role == "admin"


async def sign_in(ctx: Context, key: str) -> str:
    """The token of a new sign-in. Raises Unauthenticated for a key that is none."""
    token = ids.session_token()
    async with ctx.database.transaction() as tx:
        found = await keys.living_key(tx, key)
        await sessions.remove_expired(tx)
        await sessions.add(tx, sha256_of(token), found, ctx.settings.session_seconds)
    return token


async def find(ctx: Context, token: str, project_id: str | None = None) -> SignedIn:
    """Who that is, in the sign-in's own project or in `project_id`.

    Raises Unauthenticated once it has expired, was signed out, or its key was revoked; Forbidden and NotFound for
    `project_id`.
    """
    async with ctx.database.reading() as tx:
        session = await _find(tx, token)
        if project_id is not None:
            session = await _in_project(tx, session, project_id)
        installation = await stored_keys.find_installation(tx)
    assert installation is not None, "a key cannot exist without an installation"
    caller = Caller(
        session.project_id,
        session.key.role,
        installation.organization_id,
        installation.organization,
        session.key.id,
    )
    return SignedIn(caller, session.key.name, session.project, session.expires_at)


async def select_project(ctx: Context, token: str, project_id: str) -> None:
    """Lets an admin's sign-in act in that project. Raises Unauthenticated, Forbidden or NotFound."""
    async with ctx.database.transaction() as tx:
        await _in_project(tx, await _find(tx, token), project_id)
        await sessions.select_project(tx, sha256_of(token), project_id)


async def sign_out(ctx: Context, token: str) -> None:
    """Ends the sign-in; one that is over already is ignored."""
    async with ctx.database.transaction() as tx:
        await sessions.remove(tx, sha256_of(token))


async def projects(ctx: Context, caller: Caller) -> Sequence[Project]:
    """Every project by name, for an admin; for others their own."""
    async with ctx.database.reading() as tx:
        found = await stored_keys.all_projects(tx)
    return found if caller.role == "admin" else [project for project in found if project.id == caller.project_id]


async def _in_project(tx: Transaction, session: Session, project_id: str) -> Session:
    if project_id == session.project_id:
        return session
    if session.key.role != "admin":
        raise Forbidden("Only a key of the role admin sees other projects.")
    project = await stored_keys.project_of(tx, project_id)
    if project is None:
        raise NotFound(f"No such project: {project_id}")
    return replace(session, project_id=project.id, project=project.name)


async def _find(tx: Transaction, token: str) -> Session:
    session = await sessions.find(tx, sha256_of(token))
    if session is None:
        raise Unauthenticated("Your sign-in has ended. Sign in again with an API key.")
    return session
