"""The other pages without a browser: files, models and their names, comparison, the system, keys."""

import re
from functools import partial

import httpx
import pytest
from fastapi import FastAPI

from service.api.app import create_app
from service.commands.doctor import examine
from service.dashboard.app import add_dashboard
from service.dashboard.routes.models import tree
from service.dashboard.web.charts import histogram
from service.dashboard.web.pages import HERE, STATIC
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


async def test_rows_are_numbered_as_lines_of_the_file_and_cut_where_a_job_cuts_them(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    row = '{"prompt": "a\u2028b\x85c", "completion": "4"}'
    file = await stored(ctx, caller, "a.jsonl", f"\n\r\n{row}\r\n\n{row}\n".encode())
    text = (await member.get(f"/ui/files/{file}")).text
    assert "<dt>Lines</dt><dd>5</dd>" in text and "Length of the 2 rows" in text
    first_rows = text.partition('<ol class="rows">')[2].partition("</ol>")[0]
    assert re.findall(r'<span class="muted number">(\d+)</span>', first_rows) == ["3", "5"]
    assert first_rows.count("<dt>completion</dt><dd>4</dd>") == 2 and "<pre" not in first_rows
    long = await stored(ctx, caller, "long.jsonl", b'{"prompt": "' + b"a" * 600_000)
    assert "No row ends within the first 512 KiB" in (await member.get(f"/ui/files/{long}")).text


async def test_a_file_of_anything_at_all_has_a_page(member: httpx.AsyncClient, ctx: Context, caller: Caller) -> None:
    for line in HOSTILE:
        file = await stored(ctx, caller, "a.jsonl", line)
        assert (await member.get(f"/ui/files/{file}")).status_code == 200, line[:40]


HOSTILE = (
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"messages": [{"role": "user", "content": ' + b"1" * 5000 + b"}]}",
    b'{"messages": [{"role": "user", "content": ' + b"[" * 150 + b"]" * 150 + b"}]}",
    b'{"prompt": 1e999, "messages": [{"content": 1e999}]}',
    b'{"messages": {"role": 1}, "input": [1], "preferred_output": 2}',
    b"\xed\xa0\x80\xff\x00",
    b"\xef\xbb\xbf{}",
    b"\n\n\n",
    b"",
)


async def test_the_end_of_the_list_of_files_is_no_empty_project(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    assert "No files yet" in (await member.get("/ui/files")).text
    file = await stored(ctx, caller, "a.jsonl", ROWS)
    for after in (file, "file-unknown"):
        text = (await member.get(f"/ui/files?after={after}")).text
        assert "No older files" in text and "No files yet" not in text


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
    csrf = {"csrf": await csrf_of(member)}
    assert "The file is deleted." in await shown_after(member, f"/ui/files/{file}/delete", csrf)
    assert (await member.get(f"/ui/files/{file}")).status_code == 404
    again = await shown_after(member, f"/ui/files/{file}/delete", csrf)
    assert "<h1>Files</h1>" in again and f"No such File object: {file}" in again and 'role="alert" id="said"' in again
    assert 'id="said"' not in (await member.get("/ui/files")).text, "it is shown once"


async def shown_after(client: httpx.AsyncClient, action: str, form: dict[str, str]) -> str:
    """The page that a form leads to; it can be loaded again."""
    response = await client.post(action, data=form)
    assert response.status_code == 303, action
    page = await client.get(response.headers["location"])
    assert page.status_code == 200
    return page.text


def test_every_form_that_ends_something_asks_first_and_leads_to_a_page() -> None:
    for template in (HERE / "templates").glob("*.html"):
        for form in re.findall(r"<form[^>]*/(?:delete|revoke)[^>]*>", template.read_text(encoding="utf-8")):
            assert 'method="post"' in form and "data-confirms=" in form and "hx-" not in form, form


def test_templates_import_what_they_use_and_scripts_that_are_named_exist() -> None:
    for template in (HERE / "templates").glob("*.html"):
        text = template.read_text(encoding="utf-8")
        for names in re.findall(r'{% from "[a-z.]+" import ([a-z_, ]+) %}', text):
            for name in names.split(", "):
                assert len(re.findall(rf"\b{name}\(", text)) > 0, (template.name, name)
    for source in HERE.rglob("*.py"):
        for script in re.findall(r"static/(\w+[.]js)", source.read_text(encoding="utf-8")):
            assert (STATIC / script).is_file(), (source.name, script)


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
    taken = await shown_after(member, "/ui/models/aliases", {"csrf": csrf, "name": "support", "model": names[1]})
    assert "already" in taken and 'name="name" value="support"' in taken
    assert f'<option value="{names[1]}" selected>' in taken.partition("stands for")[2]
    refused = await shown_after(member, "/ui/models/delete", {"csrf": csrf, "model": names[1]})
    assert "support" in refused.partition('role="alert" id="said"')[2].partition("</p>")[0]
    done = await shown_after(member, "/ui/models/aliases/support/delete", {"csrf": csrf})
    assert "The name support is deleted." in done
    assert f"{names[1]} is deleted." in await shown_after(
        member, "/ui/models/delete", {"csrf": csrf, "model": names[1]}
    )


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
        made = await shown_after(admin, "/ui/keys", {"csrf": csrf, "project": "research", "name": "laptop"})
        key = made.partition('id="new-key" tabindex="0">')[2].partition("<")[0]
        known = await keys.authenticate(ctx, key)
        assert key not in (await admin.get("/ui/keys")).text
        long = {"csrf": csrf, "project": "research", "name": "n" * 65, "admin": "on"}
        refused = await shown_after(admin, "/ui/keys", long)
        assert "at most 64 characters, and has 65" in refused and 'name="admin" checked' in refused
        assert 'value="research"' in refused and f'value="{"n" * 65}"' in refused
        assert "Name the project" in await shown_after(admin, "/ui/keys", {"csrf": csrf, "project": " "})
        assert [key.name for key in await keys.list_keys(ctx)].count("laptop") == 1
        revoked = await shown_after(admin, f"/ui/keys/{known.key_id}/revoke", {"csrf": csrf})
        assert f"The key {known.key_id} is revoked." in revoked
        assert "is no active key" in await shown_after(admin, f"/ui/keys/{known.key_id}/revoke", {"csrf": csrf})
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
    assert response.status_code == 500 and "ZeroDivision" not in response.text
    assert f"Its log names it by {response.headers['x-request-id']}." in response.text


async def test_an_address_that_is_not_quite_right_gets_a_page(member: httpx.AsyncClient) -> None:
    too_many = "&".join(f"job=ftjob-{number}" for number in range(9))
    for path in (f"/ui/compare?{too_many}", "/ui/sign-in?ended=foo", "/ui/checks/x/rows?start=abc"):
        response = await member.get(path)
        assert response.status_code == 400 and "<h1>That did not work</h1>" in response.text, path
    for path, page in (("/ui", "/ui/"), ("/ui/jobs/", "/ui/jobs"), ("/ui/files/?after=a", "/ui/files?after=a")):
        assert (await member.get(path)).headers["location"] == page
    for path in ("/ui/nothing", "/ui/checks", "/ui/models/delete"):
        response = await member.get(path)
        assert response.status_code == 404 and "There is no such page." in response.text, path


async def test_a_script_is_told_what_went_wrong_in_one_sentence(member: httpx.AsyncClient) -> None:
    refused = await member.get("/ui/jobs/ftjob-1/state", headers={"HX-Request": "true"})
    assert refused.status_code == 404 and refused.headers["content-type"].startswith("text/plain")
    assert "ftjob-1" in refused.text and "<" not in refused.text


async def test_requests_of_pages_are_counted_by_their_routes(
    ctx: Context, caller: Caller, nobody: httpx.AsyncClient, client_of: ClientOf
) -> None:
    for path in ("/ui/sign-in", "/ui/jobs/one", "/ui/static/style.css", "/ui/nothing/at/all"):
        await nobody.get(path)
    page = await scrape(client_of(await keys.create_key(ctx, "default", "admin")))
    counted = [("/ui/sign-in", "200"), ("/ui/jobs/{id}", "303"), ("/ui/static", "200"), ("none", "404")]
    for route, status in counted:
        assert page.value("luthier_http_requests_total", method="GET", route=route, status=status) == 1, route
