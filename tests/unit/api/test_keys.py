"""The installation's first start, and its keys."""

import pytest

from service.domain.errors import Forbidden, NotFound, Unauthenticated
from service.installation.context import Context
from service.installation.create import create_context
from service.operations import keys


async def test_only_the_first_start_answers_a_key(ctx: Context, key: str) -> None:
    assert key.startswith("sk-luthier-")
    assert await keys.ensure_installation(ctx) is None
    assert (await keys.authenticate(ctx, key)).organization == "luthier"


async def test_the_organisation_cannot_change_after_the_first_start(key: str, ctx: Context) -> None:
    other = create_context(ctx.settings.model_copy(update={"organization": "other"}))
    with pytest.raises(keys.InstallationError, match="LUTHIER_ORGANIZATION is 'other'"):
        await keys.ensure_installation(other)
    await other.close()


async def test_keys_of_one_project_share_it_and_others_do_not(ctx: Context, key: str) -> None:
    default = await keys.authenticate(ctx, key)
    same = await keys.authenticate(ctx, await keys.create_key(ctx, "default", "admin", "ci"))
    other = await keys.authenticate(ctx, await keys.create_key(ctx, "other", "project"))
    assert (same.project_id, same.role) == (default.project_id, "admin")
    assert other.project_id == await keys.create_project(ctx, "other") != default.project_id


async def test_a_revoked_key_is_worth_nothing(ctx: Context, key: str) -> None:
    (made,) = await keys.list_keys(ctx)
    assert await keys.revoke_key(ctx, made.id)
    assert not await keys.revoke_key(ctx, made.id)
    with pytest.raises(Unauthenticated):
        await keys.authenticate(ctx, key)


async def test_an_unknown_role_is_a_mistake_of_the_caller(ctx: Context, key: str) -> None:
    with pytest.raises(ValueError, match="role"):
        await keys.create_key(ctx, "default", "root")


async def test_admins_page_through_keys_of_all_projects_and_others_see_none(ctx: Context, key: str) -> None:
    admin = await keys.authenticate(ctx, await keys.create_key(ctx, "default", "admin", "admin"))
    made = [await keys.create(ctx, admin, f"project {number}", "project", f"key {number}") for number in range(3)]
    seen: list[str] = []
    after = None
    while True:
        page = await keys.page(ctx, admin, after=after, limit=2)
        seen += [listed.id for listed in page.items]
        if not page.has_more:
            break
        after = seen[-1]
    assert len(seen) == len(set(seen)) == 5 and {new.listed.id for new in made} < set(seen)
    assert (await keys.retrieve(ctx, admin, made[0].listed.id)).project == "project 0"
    assert (await keys.page(ctx, admin, after="key_unknown", limit=2)).items == []
    assert (await keys.authenticate(ctx, made[0].value)).role == "project"
    await keys.revoke(ctx, admin, made[0].listed.id)
    for missing in (keys.revoke(ctx, admin, made[0].listed.id), keys.retrieve(ctx, admin, "key_unknown")):
        with pytest.raises(NotFound):
            await missing
    with pytest.raises(Unauthenticated):
        await keys.authenticate(ctx, made[0].value)

    other = await keys.authenticate(ctx, key)
    for refused in (
        keys.page(ctx, other, after=None, limit=1),
        keys.retrieve(ctx, other, made[1].listed.id),
        keys.create(ctx, other, "default", "admin", "more rights"),
        keys.revoke(ctx, other, made[1].listed.id),
    ):
        with pytest.raises(Forbidden, match="admin"):
            await refused
    assert len(await keys.list_keys(ctx)) == 5
