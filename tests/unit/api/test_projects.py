"""The organisation and the project that a request speaks for, as the official SDK sends them."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import httpx
import openai
import pytest
from fastapi import FastAPI

from service.api.web.auth import KnownKeys
from service.installation.context import Context
from service.operations import keys
from service.operations.keys import Caller
from tests.conftest import ClientOf
from tests.given.files_by_http import upload

SdkOf = Callable[..., openai.AsyncOpenAI]


@pytest.fixture
async def sdk_of(base_url: str, key: str) -> AsyncIterator[SdkOf]:
    """Makes an SDK with these options."""
    made: list[openai.AsyncOpenAI] = []

    def make(api_key: str = key, **options: str) -> openai.AsyncOpenAI:
        made.append(openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for sdk in made:
        await sdk.close()


@pytest.fixture
async def admin_key(ctx: Context, key: str) -> str:
    return await keys.create_key(ctx, "default", "admin")


@pytest.fixture
async def other_project(ctx: Context, stranger_key: str) -> str:
    return (await keys.authenticate(ctx, stranger_key)).project_id


def strict(ctx: Context) -> Context:
    return replace(ctx, settings=ctx.settings.model_copy(update={"strict_organization": True}))


async def test_the_own_organisation_and_project_may_be_named(sdk_of: SdkOf, caller: Caller) -> None:
    for organization in (caller.organization, caller.organization_id, ""):
        answer = await sdk_of(organization=organization, project=caller.project_id).models.with_raw_response.list()
        assert answer.headers["openai-organization"] == caller.organization
        assert answer.headers["openai-project"] == caller.project_id


async def test_what_another_services_environment_names_is_ignored_and_the_answer_says_so(
    sdk_of: SdkOf, caller: Caller, admin_key: str
) -> None:
    answer = await sdk_of(organization="org-elsewhere", project="proj_elsewhere").models.with_raw_response.list()
    assert answer.headers["luthier-ignored"] == "openai-organization, openai-project"
    assert answer.headers["openai-organization"] == caller.organization
    assert answer.headers["openai-project"] == caller.project_id
    answer = await sdk_of(admin_key, organization="org-elsewhere").models.with_raw_response.list()
    assert answer.headers["luthier-ignored"] == "openai-organization"
    answer = await sdk_of(organization=caller.organization).models.with_raw_response.list()
    assert "luthier-ignored" not in answer.headers


async def test_a_strict_installation_refuses_another_project(app: FastAPI, ctx: Context, sdk_of: SdkOf) -> None:
    app.state.known_keys = KnownKeys(strict(ctx))
    with pytest.raises(openai.AuthenticationError) as refused:
        await sdk_of(project="proj_elsewhere").models.list()
    assert refused.value.code == "mismatched_project"


async def test_a_strict_installation_refuses_another_organisation_by_name(
    app: FastAPI, ctx: Context, sdk_of: SdkOf, admin_key: str
) -> None:
    app.state.known_keys = KnownKeys(strict(ctx))
    for options in ({}, {"api_key": admin_key}):
        with pytest.raises(openai.AuthenticationError) as refused:
            await sdk_of(organization="org-elsewhere", **options).models.list()
        assert refused.value.code == "mismatched_organization"
        assert "'org-elsewhere'" in refused.value.message


async def test_a_projects_key_cannot_act_in_another_project(sdk_of: SdkOf, other_project: str) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        await sdk_of(project=other_project).models.list()
    assert refused.value.code == "mismatched_project"
    assert f"'{other_project}'" in refused.value.message


async def test_an_admins_key_acts_in_the_project_that_it_selects(
    sdk_of: SdkOf, admin_key: str, other_project: str, client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    ours, theirs = (await upload(client))["id"], (await upload(stranger))["id"]
    own, there = sdk_of(admin_key), sdk_of(admin_key, project=other_project)
    assert [file.id async for file in await own.files.list()] == [ours]
    assert [file.id async for file in await there.files.list()] == [theirs]
    answer = await there.files.with_raw_response.delete(theirs)
    assert answer.headers["openai-project"] == other_project
    assert (await stranger.get("/files")).json()["data"] == []
    assert [file.id async for file in await own.files.list()] == [ours]  # also when both are remembered


async def test_an_admins_key_cannot_select_a_project_that_is_not_there(sdk_of: SdkOf, admin_key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        await sdk_of(admin_key, project="proj_nothing").models.list()
    assert refused.value.code == "mismatched_project"
    assert "'proj_nothing'" in refused.value.message


async def test_a_good_selection_does_not_open_the_door_for_a_bad_one(
    app: FastAPI, client_of: ClientOf, key: str, caller: Caller, other_project: str
) -> None:
    client = client_of(key)
    for project, status in [(caller.project_id, 200), (other_project, 401), ("", 200), (other_project, 401)]:
        assert (await client.get("/models", headers={"OpenAI-Project": project})).status_code == status
