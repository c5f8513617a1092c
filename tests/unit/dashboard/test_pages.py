"""The other pages without a browser: files, models and their names, comparison, the system, keys."""

from functools import partial

import httpx
import pytest
from fastapi import FastAPI

from service.api.app import create_app
from service.commands.doctor import examine
from service.dashboard.app import add_dashboard
from service.dashboard.routes.models import tree
from service.dashboard.web.charts import histogram
from service.domain.errors import Unauthenticated
from service.domain.model import Model
from service.installation.context import Context
from service.operations import keys, model_aliases, models
from service.operations.keys import Caller
from service.operations.models import TunedModel
from tests.conftest import ClientOf
from tests.given.scrapes import scrape
from tests.given.visitors import csrf_of, sign_in, visitor
from tests.given.workshop import furnish, stored

ROWS = b"""{"messages": [{"role": "user", "content": "<b>1</b>"}, {"role": "assistant", "content": "2"}]}
{"prompt": "3", "completion": "4"}
no json
"""


async def test_a_file_shows_its_rows_and_escapes_what_users_wrote(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    file = await stored(ctx, caller, "a.jsonl", ROWS)
    assert "a.jsonl" in (await member.get("/ui/files")).text
    text = (await member.get(f"/ui/files/{file}")).text
    assert "&lt;b&gt;1&lt;/b&gt;" in text and "<b>1" not in text
    assert "<dt>completion</dt><dd>4</dd>" in text and "no json</pre>" in text
    assert text.count("<rect") == len(histogram([len(line) for line in ROWS.decode().splitlines()]))


async def test_what_is_wrong_with_the_lines_of_a_file_stands_on_its_page_and_in_the_list(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    right = await stored(ctx, caller, "right.jsonl", ROWS.removesuffix(b"no json\n"))
    assert "No job can train" not in (await member.get(f"/ui/files/{right}")).text
    assert 'class="problem">Line' not in (await member.get("/ui/files")).text
    wrong = await stored(ctx, caller, "wrong.jsonl", ROWS)
    text = (await member.get(f"/ui/files/{wrong}")).text
    assert "No job can train on this file" in text and "Line 3: is not JSON: expected ident at column 2" in text
    assert (
        '<p class="problem">Line 3: is not JSON: expected ident at column 2</p>' in (await member.get("/ui/files")).text
    )


async def test_a_large_file_is_read_in_part_only(member: httpx.AsyncClient, ctx: Context, caller: Caller) -> None:
    file = await stored(ctx, caller, "large.jsonl", b'{"prompt": "1", "completion": "2"}\n' * 100_000)
    response = await member.get(f"/ui/files/{file}")
    assert "more than" in response.text and len(response.content) < 60_000


async def test_a_file_is_deleted_and_foreign_ones_are_unknown(
    member: httpx.AsyncClient, foreigner: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    file = await stored(ctx, caller, "a.jsonl", ROWS)
    assert (await foreigner.get(f"/ui/files/{file}")).status_code == 404
    await member.post(f"/ui/files/{file}/delete", data={"csrf": await csrf_of(member)})
    assert (await member.get(f"/ui/files/{file}")).status_code == 404


async def test_a_name_is_given_promoted_and_rolled_back(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    shop = await furnish(ctx, caller)
    names = [found.model.name for found in await models.lineage(ctx, caller, 10) if found.model.kind == "final"]
    csrf = await csrf_of(member)
    await member.post("/ui/models/aliases", data={"csrf": csrf, "name": "support", "model": names[1]})
    await member.post("/ui/models/aliases/support/promote", data={"csrf": csrf, "model": names[0]})
    assert (await model_aliases.retrieve(ctx, caller, "support")).model == names[0] == shop.model
    await member.post("/ui/models/aliases/support/rollback", data={"csrf": csrf, "current_model": names[0]})
    assert (await model_aliases.retrieve(ctx, caller, "support")).model == names[1]
    taken = await member.post("/ui/models/aliases", data={"csrf": csrf, "name": "support", "model": names[1]})
    assert taken.status_code == 400 and "already" in taken.text
    refused = await member.post("/ui/models/delete", data={"csrf": csrf, "model": names[1]})
    assert refused.status_code == 400 and "support" in refused.text


def test_models_are_shown_below_those_that_they_continue() -> None:
    def tuned(name: str, parent: str | None) -> TunedModel:
        return TunedModel(Model(name, "p", "j", "b", "final", 1, "lora", 1), parent)

    nodes = tree([tuned("d", "c"), tuned("c", "a"), tuned("b", "gone"), tuned("a", None)])
    assert [(node.tuned.model.name, node.depth) for node in nodes] == [("b", 0), ("a", 0), ("c", 1), ("d", 2)]


async def test_compared_jobs_show_what_differs_and_nothing_else(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    shop = await furnish(ctx, caller)
    query = f"job={shop.succeeded}&job={shop.other}"
    text = (await member.get(f"/ui/compare?{query}")).text
    assert "lora.r" in text and "learning_rate_multiplier" in text and "lora.alpha" not in text
    curves = (await member.get(f"/ui/compare/curves?{query}")).json()
    assert [curve["title"] for curve in curves] == ["workshop", "half-rate"]
    assert (await member.get("/ui/compare?job=ftjob-nothing")).status_code == 404


async def test_the_system_shows_a_project_its_bases_and_an_admin_everything(
    app: FastAPI, member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    await furnish(ctx, caller)
    seen = (await member.get("/ui/system")).text
    assert "luthier-tiny" in seen and ctx.settings.engine_urls not in seen and "Jobs by project" not in seen
    assert (await member.get("/ui/system/doctor")).status_code == 403
    async with visitor(add_dashboard(create_app(ctx), partial(examine, ctx.settings))) as admin:
        await sign_in(admin, await keys.create_key(ctx, "default", "admin"))
        text = (await admin.get("/ui/system")).text
        assert ctx.settings.engine_urls in text and "Jobs by project" in text
        found = (await admin.get("/ui/system/doctor")).text
        assert "does not respond" in found and found.index("problem") < found.index(">ok<")


async def test_an_admin_creates_a_key_that_is_shown_once_and_revokes_it(
    app: FastAPI, member: httpx.AsyncClient, ctx: Context
) -> None:
    assert (await member.get("/ui/keys")).status_code == 403
    assert (await member.post("/ui/keys", data={"csrf": await csrf_of(member), "project": "x"})).status_code == 403
    async with visitor(app) as admin:
        await sign_in(admin, await keys.create_key(ctx, "default", "admin"))
        csrf = await csrf_of(admin)
        made = (await admin.post("/ui/keys", data={"csrf": csrf, "project": "research", "name": "laptop"})).text
        key = made.partition('id="new-key" tabindex="0">')[2].partition("<")[0]
        known = await keys.authenticate(ctx, key)
        assert key not in (await admin.get("/ui/keys")).text
        await admin.post(f"/ui/keys/{known.key_id}/revoke", data={"csrf": csrf})
    with pytest.raises(Unauthenticated):
        await keys.authenticate(ctx, key)


async def test_an_error_of_ours_is_a_page_with_a_status(
    ctx: Context, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_down() -> list[object]:
        raise ZeroDivisionError

    async with visitor(add_dashboard(create_app(ctx), break_down)) as admin:  # type: ignore[arg-type]
        await sign_in(admin, await keys.create_key(ctx, "default", "admin"))
        response = await admin.get("/ui/system/doctor")
    assert response.status_code == 500 and "x-request-id" in response.text and "ZeroDivision" not in response.text


async def test_requests_of_pages_are_counted_by_their_routes(
    ctx: Context, caller: Caller, nobody: httpx.AsyncClient, client_of: ClientOf
) -> None:
    for path in ("/ui/sign-in", "/ui/jobs/one", "/ui/static/style.css", "/ui/nothing/at/all"):
        await nobody.get(path)
    page = await scrape(client_of(await keys.create_key(ctx, "default", "admin")))
    counted = [("/ui/sign-in", "200"), ("/ui/jobs/{id}", "303"), ("/ui/static", "200"), ("none", "404")]
    for route, status in counted:
        assert page.value("luthier_http_requests_total", method="GET", route=route, status=status) == 1, route
