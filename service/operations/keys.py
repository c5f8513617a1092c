"""Who is calling: the installation, its projects and their API keys. The first operation of every request.

A key is shown once, when it is created; the database stores its SHA-256 only. The API caches callers.
"""

import hashlib
import time
from dataclasses import dataclass
from typing import Literal, get_args

from service.db import keys
from service.db.connection import Transaction
from service.db.keys import ApiKey, Installation
from service.domain import ids
from service.domain.api_key import ListedKey
from service.domain.errors import Forbidden, NotFound, Unauthenticated
from service.installation.context import Context
from service.operations.paging import Page, cut

DEFAULT_PROJECT = "default"
Role = Literal["project", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)


class InstallationError(Exception):
    """The settings do not match this database; the message says what to do."""


@dataclass(frozen=True)
class Caller:
    """Whose request it is; every query is scoped by `project_id`. `organization` is the slug in model names; limits are
    counted by `key_id`. `ignored` are headers that named another service's organisation or project.
    """

    project_id: str
    role: str
    organization_id: str
    organization: str
    key_id: str
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class NewKey:
    """A key just created; `value` is the secret, in clear."""

    listed: ListedKey
    value: str


async def ensure_installation(ctx: Context) -> str | None:
    """At the first start: freezes the organisation, creates the default project and a key, and returns that key.

    Later: None. Raises InstallationError when the settings name another organisation than the frozen one.
    """
    async with ctx.database.transaction() as tx:
        if not await keys.add_installation(tx, Installation(ids.organization_id(), ctx.settings.organization)):
            installation = await keys.find_installation(tx)
            assert installation is not None, "an installation is never deleted"
            _check_organization(ctx, installation)
            return None
        project_id = await _project(tx, DEFAULT_PROJECT)
        return (await _add_key(tx, project_id, "project", "created at the first start"))[1]


async def check_organization(ctx: Context) -> None:
    """Raises InstallationError when the settings name another organisation than that of this installation, if any."""
    async with ctx.database.reading() as tx:
        installation = await keys.find_installation(tx)
    if installation is not None:
        _check_organization(ctx, installation)


async def create_project(ctx: Context, name: str) -> str:
    """The id of the project of that name, which is created if it is new."""
    async with ctx.database.transaction() as tx:
        return await _project(tx, name)


async def create_key(ctx: Context, project: str, role: str, name: str = "key") -> str:
    """A new key for the project of that name (created if it is new), in clear: it cannot be read again."""
    if role not in ROLES:
        raise ValueError(f"a key's role is one of {', '.join(ROLES)}, not '{role}'")
    async with ctx.database.transaction() as tx:
        return (await _add_key(tx, await _project(tx, project), role, name))[1]


async def create(ctx: Context, caller: Caller, project: str, role: Role, name: str) -> NewKey:
    """As `create_key`, for an admin. Raises Forbidden."""
    _check_admin(caller)
    async with ctx.database.transaction() as tx:
        key, value = await _add_key(tx, await _project(tx, project), role, name)
        listed = ListedKey(key.id, key.name, key.project_id, project, key.role, key.created_at)
        return NewKey(listed, value)


async def page(ctx: Context, caller: Caller, *, after: str | None, limit: int) -> Page[ListedKey]:
    """Keys of all projects for an admin, newest first, older than `after`. Raises Forbidden."""
    _check_admin(caller)
    async with ctx.database.reading() as tx:
        return cut(await keys.page(tx, after, limit + 1), limit)


async def retrieve(ctx: Context, caller: Caller, id: str) -> ListedKey:
    """One key, for an admin. Raises Forbidden or NotFound."""
    _check_admin(caller)
    async with ctx.database.reading() as tx:
        found = await keys.listed(tx, id)
    if found is None:
        raise NotFound(f"Could not find API key: {id}", param="key_id", code="api_key_not_found")
    return found


async def revoke(ctx: Context, caller: Caller, id: str) -> None:
    """As `revoke_key`, for an admin. Raises Forbidden, and NotFound for a key that is revoked already."""
    _check_admin(caller)
    if not await revoke_key(ctx, id):
        raise NotFound(f"There is no active API key: {id}", param="key_id", code="api_key_not_found")


async def list_keys(ctx: Context) -> list[ApiKey]:
    """Every key of the installation, oldest first."""
    async with ctx.database.reading() as tx:
        return await keys.all_keys(tx)


async def revoke_key(ctx: Context, id: str) -> bool:
    """Ends a key; an API that has just seen it may honour it for 5 more seconds. False when there is no living one."""
    async with ctx.database.transaction() as tx:
        return await keys.revoke_key(tx, id)


async def authenticate(ctx: Context, bearer: str, organization: str = "", project_id: str = "") -> Caller:
    """Whose key this is, acting in the project that it selects: its own, or for an admin's key any. "": not selected.

    A script written for another service still has that one's organisation and project in its environment: unless
    `strict_organization` is set, they are ignored, and the responses say so. A project of this installation never is.

    Raises Unauthenticated for a key, an organisation (id or slug) or a project that do not belong together.
    """
    ignored: list[str] = []
    async with ctx.database.reading() as tx:
        key = await living_key(tx, bearer)
        installation = await keys.find_installation(tx)
        assert installation is not None, "a key cannot exist without an installation"
        if organization not in ("", installation.organization_id, installation.organization):
            _check_lenient(ctx, organization, installation)
            ignored.append("openai-organization")
        if await _is_foreign(ctx, tx, key, project_id):
            ignored.append("openai-project")
            project_id = ""
        selected = await _select_project(tx, key, project_id)
    return Caller(selected, key.role, installation.organization_id, installation.organization, key.id, tuple(ignored))


async def living_key(tx: Transaction, bearer: str) -> ApiKey:
    """The key that these characters are. Raises Unauthenticated."""
    key = await keys.find_key(tx, sha256_of(bearer))
    if key is None:
        raise Unauthenticated(
            f"Incorrect API key provided: {_masked(bearer)}. Use one that `luthierd keys create` has printed."
        )
    return key


def _check_admin(caller: Caller) -> None:
    if caller.role != "admin":
        raise Forbidden("Keys are for admins: use a key of the role admin (`luthierd keys create --admin`).")


def _check_lenient(ctx: Context, selected: str, installation: Installation) -> None:
    if ctx.settings.strict_organization:
        raise Unauthenticated(
            f"OpenAI-Organization header should match organization for API key: it says '{selected}', but this is "
            f"'{installation.organization}'. Send that, or leave the header out.",
            code="mismatched_organization",
        )


async def _is_foreign(ctx: Context, tx: Transaction, key: ApiKey, selected: str) -> bool:
    """Whether a header that selects this project may be ignored. Never an admin's: that would use a wrong project."""
    if ctx.settings.strict_organization or key.role == "admin" or selected == "":
        return False
    return not await keys.project_exists(tx, selected)


async def _select_project(tx: Transaction, key: ApiKey, selected: str) -> str:
    if selected in ("", key.project_id):
        return key.project_id
    if key.role != "admin":
        hint = f"the key's is '{key.project_id}'. Send that, leave the header out, or use an admin's key"
    elif not await keys.project_exists(tx, selected):
        hint = "there is no such project. `luthierd keys list` shows the ids of those that have keys"
    else:
        return selected
    raise Unauthenticated(
        f"OpenAI-Project header should match project for API key: it says '{selected}', but {hint}.",
        code="mismatched_project",
    )


def _check_organization(ctx: Context, installation: Installation) -> None:
    if installation.organization != ctx.settings.organization:
        raise InstallationError(
            f"LUTHIER_ORGANIZATION is '{ctx.settings.organization}', but this installation is "
            f"'{installation.organization}' since its first start: the name is part of every tuned model's name. "
            f"Set LUTHIER_ORGANIZATION={installation.organization}, or use another database."
        )


async def _project(tx: Transaction, name: str) -> str:
    id = ids.project_id()
    if await keys.add_project(tx, id, name):
        return id
    found = await keys.find_project(tx, name)
    assert found is not None, "projects are never deleted"
    return found


async def _add_key(tx: Transaction, project_id: str, role: str, name: str) -> tuple[ApiKey, str]:
    """The key, and its secret."""
    key, clear = ApiKey(ids.key_id(), project_id, role, name, int(time.time())), ids.api_key()
    await keys.add_key(tx, key, sha256_of(clear))
    return key, clear


def sha256_of(bearer: str) -> str:
    """What the database stores of a secret that is too long to be guessed."""
    return hashlib.sha256(bearer.encode("utf-8", "surrogateescape")).hexdigest()


def _masked(bearer: str) -> str:
    """Enough to recognise one's own key, too little to use it."""
    return f"{bearer[:8]}****{bearer[-4:]}" if len(bearer) >= 16 else "****"
