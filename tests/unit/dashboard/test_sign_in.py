"""Who gets to see pages: signing in with a key, until the sign-in or the key ends; forms only from pages of ours."""

from urllib.parse import parse_qsl, urlsplit

import httpx
from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.dashboard.app import NOUNS
from service.dashboard.web.attempts import LIMIT, Attempts
from service.dashboard.web.visitors import csrf_of as csrf_token
from service.domain.errors import RateLimited
from service.installation.context import Context
from service.operations import files, keys, model_aliases
from service.operations.keys import Caller
from tests.given.sessions import expire_sessions
from tests.given.visitors import csrf_of, sign_in, visitor
from tests.given.workshop import stored


async def test_a_browser_is_led_from_the_root_to_the_pages_and_a_client_gets_json(nobody: httpx.AsyncClient) -> None:
    led = await nobody.get("/")
    assert (led.status_code, led.headers["location"]) == (303, "/ui/")
    told = await nobody.get("/", headers={"Accept": "*/*"})
    assert told.json()["api"] == "/v1"


async def test_a_key_signs_in_with_a_cookie_that_scripts_cannot_read(nobody: httpx.AsyncClient, key: str) -> None:
    response = await sign_in(nobody, key)
    assert (response.status_code, response.headers["location"]) == (303, "/ui/jobs")
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/ui" in cookie
    assert key not in cookie
    assert (await nobody.get("/ui/jobs")).status_code == 200


async def test_over_https_the_cookie_is_sent_over_https_only(app: FastAPI, key: str) -> None:
    async with visitor(app) as client:
        client.base_url = httpx.URL("https://luthier")
        assert "Secure" in (await sign_in(client, key)).headers["set-cookie"]


async def test_a_wrong_key_is_said_on_the_form(nobody: httpx.AsyncClient, key: str) -> None:
    response = await sign_in(nobody, key[:-1])
    assert response.status_code == 401
    assert "This key is not valid" in response.text and 'role="alert"' in response.text
    assert "set-cookie" not in response.headers


async def test_too_many_wrong_keys_have_to_wait(nobody: httpx.AsyncClient, key: str) -> None:
    for _ in range(LIMIT):
        assert (await sign_in(nobody, "sk-luthier-guessed")).status_code == 401
    refused = await sign_in(nobody, key)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) <= 60


def test_attempts_are_forgotten_after_a_minute() -> None:
    now = 0.0
    attempts = Attempts(lambda: now)
    for _ in range(LIMIT):
        attempts.check("one")
        attempts.failed("one")
    attempts.check("another")
    try:
        attempts.check("one")
    except RateLimited:
        now = 61.0
    attempts.check("one")
    assert now == 61.0


async def test_without_a_sign_in_every_page_leads_to_the_form(nobody: httpx.AsyncClient) -> None:
    response = await nobody.get("/ui/jobs/ftjob-1")
    assert response.status_code == 303
    assert response.headers["location"] == "/ui/sign-in?next=/ui/jobs/ftjob-1"


async def test_a_sign_in_that_has_expired_is_said_and_scripts_are_led_to_the_form(
    member: httpx.AsyncClient, ctx: Context
) -> None:
    assert (await member.get("/ui/jobs")).status_code == 200
    await expire_sessions(ctx)
    assert "ended=1" in (await member.get("/ui/jobs")).headers["location"]
    polled = await member.get("/ui/jobs/rows", headers={"HX-Request": "true"})
    assert polled.status_code == 401 and "/ui/sign-in" in polled.headers["hx-redirect"]
    assert (await member.get("/ui/v1/models")).status_code == 401


async def test_revoking_the_key_ends_the_sign_in(member: httpx.AsyncClient, ctx: Context, caller: Caller) -> None:
    await keys.revoke_key(ctx, caller.key_id)
    assert (await member.get("/ui/jobs")).status_code == 303
    assert (await member.get("/ui/v1/models")).status_code == 401


async def test_signing_out_ends_the_sign_in_for_whoever_has_its_cookie(member: httpx.AsyncClient) -> None:
    cookie = member.cookies["luthier_session"]
    await member.post("/ui/sign-out", data={"csrf": await csrf_of(member)})
    member.cookies.set("luthier_session", cookie, path="/ui")
    assert (await member.get("/ui/jobs")).status_code == 303


async def test_a_form_without_the_pages_token_changes_nothing(member: httpx.AsyncClient) -> None:
    assert (await member.post("/ui/sign-out")).status_code == 403
    assert (await member.post("/ui/sign-out", data={"csrf": "0" * 64})).status_code == 403
    assert (await member.get("/ui/jobs")).status_code == 200


async def test_no_form_at_all_does_anything_without_the_pages_token(member: httpx.AsyncClient) -> None:
    actions = [
        route.path
        for router in NOUNS
        for route in router.router.routes
        if isinstance(route, APIRoute) and "POST" in route.methods and route.path != "/sign-in"
    ]
    assert len(actions) > 10
    for action in actions:
        refused = await member.post(f"/ui{action.format(id='x', name='x', action='delete')}", data={"model": "x"})
        assert refused.status_code == 403 and "Nothing was done" in refused.text, action
    assert (await member.get("/ui/jobs")).status_code == 200


async def test_a_form_beyond_its_bounds_is_refused(member: httpx.AsyncClient) -> None:
    for form in ({f"field{number}": "" for number in range(501)}, {"field": "a" * 256 * 1024}):
        for path in ("/ui/sign-in", "/ui/jobs"):
            refused = await member.post(path, data=form)
            assert refused.status_code == 413 and "A form may have at most" in refused.text


async def test_a_call_of_the_api_needs_the_token_unless_it_reads(member: httpx.AsyncClient) -> None:
    assert (await member.get("/ui/v1/models")).json()["data"][0]["id"] == "luthier-tiny"
    body = {"model": "luthier-tiny", "training_file": "file-1"}
    refused = await member.post("/ui/v1/fine_tuning/jobs", json=body)
    assert refused.status_code == 403
    sent = await member.post("/ui/v1/fine_tuning/jobs", json=body, headers={"X-CSRF-Token": await csrf_of(member)})
    assert sent.json()["error"]["param"] == "training_file"


async def test_the_api_itself_takes_no_cookie(member: httpx.AsyncClient) -> None:
    cookie = member.cookies["luthier_session"]
    assert (await member.get("/v1/models", headers={"Cookie": f"luthier_session={cookie}"})).status_code == 401


async def test_another_sites_form_signs_nobody_in(nobody: httpx.AsyncClient, key: str) -> None:
    nobody.headers["Sec-Fetch-Site"] = "cross-site"
    assert (await sign_in(nobody, key)).status_code == 403


async def test_a_sign_in_continues_only_at_a_page_of_ours(nobody: httpx.AsyncClient, key: str) -> None:
    for next in ("//evil.example/ui/", "https://evil.example", "/ui//evil.example", "/v1/models"):
        response = await nobody.post("/ui/sign-in", data={"key": key, "next": next})
        assert response.headers["location"] == "/ui/jobs", next
    response = await nobody.post("/ui/sign-in", data={"key": key, "next": "/ui/jobs/ftjob-1"})
    assert response.headers["location"] == "/ui/jobs/ftjob-1"


async def test_an_admin_chooses_the_project_and_others_cannot(
    app: FastAPI, ctx: Context, member: httpx.AsyncClient, stranger_key: str
) -> None:
    other = (await keys.authenticate(ctx, stranger_key)).project_id
    refused = await member.post("/ui/project", data={"csrf": await csrf_of(member), "project": other})
    assert refused.status_code == 403
    async with visitor(app) as admin:
        await sign_in(admin, await keys.create_key(ctx, "default", "admin"))
        assert "another project" in (await admin.get("/ui/jobs")).text
        await admin.post("/ui/project", data={"csrf": await csrf_of(admin), "project": other})
        headers = (await admin.get("/ui/v1/models")).headers
        assert headers["openai-project"] == other
    assert "another project" not in (await member.get("/ui/jobs")).text


async def test_what_a_page_does_happens_in_the_project_that_it_shows(
    app: FastAPI, ctx: Context, caller: Caller, stranger_key: str
) -> None:
    other = await keys.authenticate(ctx, stranger_key)
    mine = await stored(ctx, caller, "mine.jsonl", b"{}")
    async with visitor(app) as admin:
        await sign_in(admin, await keys.create_key(ctx, "default", "admin"))
        first = await csrf_of(admin)
        await admin.post("/ui/project", data={"csrf": first, "project": other.project_id})
        second = await csrf_of(admin)
        assert "No jobs yet" in (await admin.get("/ui/jobs")).text

        seen = await admin.get("/ui/v1/files", headers={"X-CSRF-Token": first})
        assert [file["id"] for file in seen.json()["data"]] == [mine], "a script of the first page reads"
        assert (await admin.get("/ui/v1/files")).json()["data"] == [], "and moves nothing"
        polled = {"HX-Request": "true", "X-CSRF-Token": second}
        assert (await admin.get(f"/ui/files/{mine}", headers=polled)).status_code == 404

        sent = {"file": ("new.jsonl", b"{}"), "purpose": (None, "fine-tune")}
        made = (await admin.post("/ui/v1/files", files=sent, headers={"X-CSRF-Token": first})).json()["id"]
        assert (await files.retrieve(ctx, caller, made)).filename == "new.jsonl"
        assert (await admin.get(f"/ui/files/{made}")).status_code == 200, "the next page shows what was uploaded"
        await admin.post("/ui/models/aliases", data={"csrf": second, "name": "theirs", "model": "luthier-tiny"})
        assert [alias.name for alias in (await model_aliases.page(ctx, other, after=None, limit=9)).items] == ["theirs"]
        assert (await model_aliases.page(ctx, caller, after=None, limit=9)).items == []


async def test_a_page_of_another_project_than_the_key_may_see_does_nothing(
    member: httpx.AsyncClient, ctx: Context, stranger_key: str
) -> None:
    other = (await keys.authenticate(ctx, stranger_key)).project_id
    own = await csrf_of(member)
    forged = [f"{other}.{own.rpartition('.')[2]}", csrf_token(member.cookies["luthier_session"], other)]
    for token in forged:
        assert (await member.post("/ui/sign-out", data={"csrf": token})).status_code == 403
        sent = {"file": ("new.jsonl", b"{}"), "purpose": (None, "fine-tune")}
        refused = await member.post("/ui/v1/files", files=sent, headers={"X-CSRF-Token": token})
        assert refused.status_code == 403
    assert (await member.get("/ui/jobs")).status_code == 200


async def test_what_was_filled_in_is_there_again_after_signing_in(
    member: httpx.AsyncClient, ctx: Context, caller: Caller, key: str
) -> None:
    file = await stored(ctx, caller, "a.jsonl", b"{}")
    form = {"csrf": await csrf_of(member), "model": "luthier-tiny", "training_file": file, "objective": "supervised"}
    form |= {"tuning": "lora", "suffix": "mine", "tuning.r": "4", "tuning.rank_pattern": '{"a//b": 2}'}
    form |= {"tuning.use_dora": "true"}
    await expire_sessions(ctx)
    scripted = {"HX-Request": "true", "HX-Current-URL": "http://luthier/ui/jobs/new"}
    sent = await member.post("/ui/jobs", data=form)
    leads = (await member.post("/ui/jobs/new/request", data=form, headers=scripted)).headers["hx-redirect"]
    assert sent.headers["location"] == leads
    next = dict(parse_qsl(urlsplit(leads).query))["next"]
    signed_in = await member.post("/ui/sign-in", data={"key": key, "next": next})
    text = (await member.get(signed_in.headers["location"])).text
    assert 'value="mine"' in text and f'<option value="{file}" selected>' in text and "a//b" in text
    assert 'name="tuning.r" value="4"' in text
    assert 'name="tuning.use_dora" value="true" checked' in text


async def test_a_script_takes_nobody_away_from_a_form_that_is_filled_in(
    member: httpx.AsyncClient, ctx: Context
) -> None:
    await expire_sessions(ctx)
    scripted = {"HX-Request": "true", "HX-Current-URL": "http://luthier/ui/jobs/new?file=1"}
    polled = await member.get("/ui/checks/check-1/state", headers=scripted)
    assert polled.status_code == 401 and "hx-redirect" not in polled.headers and "has ended" in polled.text


async def test_after_signing_in_somebody_is_on_the_page_that_the_action_came_from(
    member: httpx.AsyncClient, ctx: Context
) -> None:
    csrf = await csrf_of(member)
    await expire_sessions(ctx)
    for action, page in (
        ("/ui/files/file-1/delete", "/ui/files/file-1"),
        ("/ui/models/aliases/a/promote", "/ui/models"),
        ("/ui/keys", "/ui/keys"),
        ("/ui/checks", "/ui/jobs"),
    ):
        location = (await member.post(action, data={"csrf": csrf})).headers["location"]
        assert location == f"/ui/sign-in?next={page}&ended=1", action


async def test_a_page_of_an_earlier_sign_in_is_made_anew_with_what_was_filled_in(
    member: httpx.AsyncClient, key: str
) -> None:
    form = {"csrf": await csrf_of(member), "model": "luthier-tiny", "suffix": "mine"}
    await sign_in(member, key)
    refused = await member.post("/ui/jobs", data=form)
    assert refused.status_code == 403
    assert 'href="/ui/jobs/new?model=luthier-tiny&amp;suffix=mine"' in refused.text
    scripted = {"HX-Request": "true", "HX-Current-URL": "http://luthier/ui/jobs"}
    polled = await member.get("/ui/jobs/rows", headers=scripted | {"X-CSRF-Token": form["csrf"]})
    assert (polled.status_code, polled.headers["hx-redirect"]) == (403, "/ui/jobs")


async def test_pages_may_load_and_run_what_is_ours_only(member: httpx.AsyncClient) -> None:
    response = await member.get("/ui/jobs")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert response.headers["cache-control"] == "no-store"
    assert "<script>" not in response.text and " style=" not in response.text and "onclick" not in response.text
