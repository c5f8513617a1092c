"""Aliases of bases: set by command, in force at once, in the names of what is trained through them."""

import httpx
import pytest

from service.domain.errors import InvalidRequest
from service.domain.job import named_after
from service.domain.model import is_model_name
from service.installation.context import Context
from service.operations import aliases, lookups
from service.operations.keys import Caller
from service.operations.models import resolve_for_inference
from tests.given.jobs_by_http import JOBS, create
from tests.given.stored_models import add_model

ALIAS = "gpt-4o-mini-2024-07-18"
TUNED = f"ft:{ALIAS}:luthier:x:AAAAAAAA"


async def test_an_alias_is_listed_called_and_forgotten(ctx: Context, client: httpx.AsyncClient, caller: Caller) -> None:
    assert (await client.get(f"/models/{ALIAS}")).status_code == 404
    await aliases.set_alias(ctx, ALIAS, "luthier-tiny")
    assert [model["id"] for model in (await client.get("/models")).json()["data"]] == ["luthier-tiny", ALIAS]
    assert (await client.get(f"/models/{ALIAS}")).json()["id"] == ALIAS
    assert (await client.delete(f"/models/{ALIAS}")).status_code == 403
    assert (await resolve_for_inference(ctx, caller, ALIAS)).name_for_engine == "luthier-tiny"
    await aliases.remove_alias(ctx, ALIAS)
    assert (await client.get(f"/models/{ALIAS}")).status_code == 404
    with pytest.raises(InvalidRequest, match="no alias"):
        await aliases.remove_alias(ctx, ALIAS)


async def test_models_are_named_after_the_alias_and_so_are_those_that_continue_them(
    ctx: Context, client: httpx.AsyncClient, caller: Caller
) -> None:
    await aliases.set_alias(ctx, ALIAS, "luthier-tiny")
    job = await create(client, model=ALIAS)
    assert job["model"] == ALIAS
    stored = await lookups.find_job(ctx, job["id"])
    assert stored is not None and (stored.base, named_after(stored)) == ("luthier-tiny", ALIAS)

    await add_model(ctx, caller, job["id"], TUNED, kind="final")
    await aliases.remove_alias(ctx, ALIAS)  # what is there stays as it is named
    assert (await resolve_for_inference(ctx, caller, TUNED)).base_id == "luthier-tiny"
    child = await create(client, model=TUNED, tuning=None)
    continued = await lookups.find_job(ctx, child["id"])
    assert child["model"] == TUNED
    assert continued is not None and named_after(continued) == ALIAS
    assert (await client.get(f"{JOBS}/{job['id']}")).json()["model"] == ALIAS

    by_id = await lookups.find_job(ctx, (await create(client))["id"])
    assert by_id is not None and named_after(by_id) == "luthier-tiny"


@pytest.mark.parametrize(
    ("alias", "base", "said"),
    [
        ("ft:gpt-4o-mini:acme::AbCdEf12", "luthier-tiny", "tuned model's name"),
        ("gpt 4", "luthier-tiny", "letters, digits"),
        ("../up", "luthier-tiny", "letters, digits"),
        ("x" * 255, "luthier-tiny", "too long"),
        ("luthier-tiny", "luthier-tiny", "catalogue's file already"),
        ("gpt-5", "luthier-tinny", "the catalogue has: luthier-tiny"),
    ],
)
async def test_what_cannot_be_an_alias_is_refused(ctx: Context, alias: str, base: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        await aliases.set_alias(ctx, alias, base)
    assert await aliases.list_names(ctx) == [("luthier-tiny", "luthier-tiny")]


async def test_an_alias_of_an_alias_stands_for_the_base_and_can_be_moved(ctx: Context) -> None:
    await aliases.set_alias(ctx, ALIAS, "luthier-tiny")
    await aliases.set_alias(ctx, "gpt-4o-mini", ALIAS)
    await aliases.set_alias(ctx, "gpt-4o-mini", "luthier-tiny")
    assert await aliases.list_names(ctx) == [
        ("luthier-tiny", "luthier-tiny"), ("gpt-4o-mini", "luthier-tiny"), (ALIAS, "luthier-tiny"),
    ]  # fmt: skip
    assert is_model_name(TUNED)
