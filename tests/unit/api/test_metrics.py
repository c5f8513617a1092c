"""/metrics as Prometheus sees it: numbers that follow jobs and requests, for admins' keys only, whatever is down."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from service.api.app import create_app
from service.api.routes import metrics
from service.api.web import admins
from service.api.web.admins import Admins
from service.api.web.auth import CACHE_SECONDS, KnownKeys
from service.domain.errors import JobError
from service.domain.job import Publication
from service.domain.work import WorkerState
from service.installation.context import Context
from service.installation.create import create_context
from service.operations import keys
from service.operations.keys import Caller
from service.settings.settings import Settings
from service.work import claims
from tests.conftest import ClientOf
from tests.given.scrapes import BASE, METRICS, scrape
from tests.given.scripted_engine import ScriptedEngine, answers, dies, hangs, streams
from tests.given.stored_jobs import BASES, a_model, a_result, add_job, claimed, expire, move
from tests.given.work import claim_announcement, claim_training, claim_validation
from tests.servers.valkey import Valkey


async def requests(admin: httpx.AsyncClient, **labels: str) -> float | None:
    return (await scrape(admin)).value("luthier_http_requests_total", **labels)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine's database is slow, not down."""
    for module in (metrics, admins):
        monkeypatch.setattr(module, "LOOK_SECONDS", 60.0)


@pytest.fixture
def settings(tmp_path: Path, engine: ScriptedEngine) -> Settings:
    """One engine that answers, and one that is down."""
    return Settings(data_dir=tmp_path / "data", engine_urls=f"{engine.url},http://127.0.0.1:1")


@pytest.fixture
async def admin_key(ctx: Context, key: str) -> str:
    return await keys.create_key(ctx, "operators", "admin")


@pytest.fixture
async def admin(client_of: ClientOf, admin_key: str) -> httpx.AsyncClient:
    return client_of(admin_key)


async def test_an_installation_without_jobs_has_zeros(admin: httpx.AsyncClient) -> None:
    page = await scrape(admin)
    for status in ("validating_files", "queued", "running", "paused"):
        assert page.value("luthier_jobs", status=status, **BASE) == 0
    for status in ("succeeded", "failed", "cancelled"):
        assert page.value("luthier_jobs_ended_total", status=status) == 0
    for name in ("held", "lost", "to_announce", "waiting_seconds"):
        assert page.value(f"luthier_jobs_{name}", **BASE) == 0
    assert page.value("luthier_database_up") == 1
    assert page.value("luthier_redis_up") is None


async def test_the_numbers_follow_a_job_to_its_end(ctx: Context, caller: Caller, admin: httpx.AsyncClient) -> None:
    await add_job(ctx, caller)
    page = await scrape(admin)
    assert page.value("luthier_jobs", status="validating_files", **BASE) == 1
    assert page.value("luthier_jobs_waiting_seconds", **BASE) == pytest.approx(
        time.time() - 1, abs=60
    )  # it was made a second after 1970 began

    validating = await claim_validation(ctx, "one")
    assert validating is not None
    page = await scrape(admin)
    assert page.value("luthier_jobs_held", **BASE) == 1
    assert page.value("luthier_jobs_waiting_seconds", **BASE) == 0
    await validating.validated(hyperparameters={}, total_steps=1)
    page = await scrape(admin)
    assert page.value("luthier_jobs_held", **BASE) == 0
    assert page.value("luthier_jobs_waiting_seconds", **BASE) == pytest.approx(time.time() - 1, abs=60)

    claim = await claim_training(ctx, "one", BASES)
    assert claim is not None
    await expire(ctx, claim.job.id)
    page = await scrape(admin)
    assert page.value("luthier_jobs", status="running", **BASE) == 1
    assert (page.value("luthier_jobs_held", **BASE), page.value("luthier_jobs_lost", **BASE)) == (0, 1)
    assert page.value("luthier_jobs_waiting_seconds", **BASE) == 0

    claim = await claim_training(ctx, "two", BASES)
    assert claim is not None
    model = a_model(claim)
    await claim.trained(Publication(model.name, 1, {}, "sample", "0" * 64))
    assert (await scrape(admin)).value("luthier_jobs_to_announce", **BASE) == 1
    claim = await claim_announcement(ctx, "two", BASES)
    assert claim is not None
    await claim.finish(model, {}, a_result(claim))
    page = await scrape(admin)
    assert page.value("luthier_jobs_ended_total", status="succeeded") == 1
    assert page.value("luthier_jobs_to_announce", **BASE) == 0
    assert sum(page.value("luthier_jobs", status=status, **BASE) or 0 for status in ("running", "queued")) == 0


async def test_a_resumed_job_does_not_wait_since_it_was_made(
    ctx: Context, caller: Caller, admin: httpx.AsyncClient
) -> None:
    job = await add_job(ctx, caller, "queued")
    await move(ctx, job.id, "queued", started_at=1)
    page = await scrape(admin)
    assert page.value("luthier_jobs", status="queued", **BASE) == 1
    assert page.value("luthier_jobs_waiting_seconds", **BASE) == 0


async def test_failures_are_counted_over_all_projects(
    ctx: Context, caller: Caller, stranger_key: str, admin: httpx.AsyncClient
) -> None:
    for owner in (caller, await keys.authenticate(ctx, stranger_key)):
        await (await claimed(ctx, owner)).fail(JobError("out_of_memory", "too large"))
    assert (await scrape(admin)).value("luthier_jobs_ended_total", status="failed") == 2


async def test_a_job_of_a_base_that_the_catalogue_has_lost_is_still_seen(
    ctx: Context, caller: Caller, admin: httpx.AsyncClient
) -> None:
    await add_job(ctx, caller, "queued", base="forgotten")
    assert (await scrape(admin)).value("luthier_jobs", base="forgotten", status="queued") == 1


async def test_requests_are_counted_by_pattern_and_answer(admin: httpx.AsyncClient) -> None:
    of_file = {"method": "GET", "route": "/v1/files/{file_id}", "status": "404"}
    assert await requests(admin, **of_file) is None
    for _ in range(2):
        await admin.get("/files/file-does-not-exist")
    assert await requests(admin, **of_file) == 2
    page = await scrape(admin)
    timed = {name: value for name, value in of_file.items() if name != "status"}
    assert page.value("luthier_http_request_seconds_count", **timed) == 2
    assert page.value("luthier_http_request_seconds_bucket", le="+Inf", **timed) == 2
    assert page.value("luthier_http_requests_total", method="GET", route="/metrics", status="200") == 2


async def test_a_mistake_of_ours_is_counted_as_one(app: FastAPI, admin: httpx.AsyncClient) -> None:
    async def broken() -> None:
        raise RuntimeError

    async def half() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError

        return StreamingResponse(chunks())

    app.add_api_route("/broken", broken)
    app.add_api_route("/half", half)
    assert (await admin.get("http://luthier/broken")).status_code == 500
    assert await requests(admin, method="GET", route="none", status="500") == 1
    assert (await admin.get("http://luthier/half")).status_code == 200  # it cannot be taken back
    assert await requests(admin, method="GET", route="none", status="500") == 2


async def test_a_client_that_hangs_up_without_an_answer_is_counted(
    base_url: str, key: str, admin: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    engine.script = hangs
    async with httpx.AsyncClient(base_url=base_url, headers={"Authorization": f"Bearer {key}"}) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/completions", json={"model": "luthier-tiny", "prompt": "Hello"}, timeout=0.3)
    async with asyncio.timeout(5):
        while await requests(admin, method="POST", route="/v1/completions", status="abandoned") != 1:
            await asyncio.sleep(0.05)


async def test_nothing_that_a_client_wrote_becomes_a_label(
    ctx: Context, caller: Caller, client: httpx.AsyncClient, admin: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    claim = await claimed(ctx, caller)
    model = a_model(claim)
    await claim.finish(model, {}, a_result(claim))
    assert (await client.post("/completions", json={"model": model.name, "prompt": "Hello"})).status_code == 200
    assert (await client.get(f"/models/{model.name}")).status_code == 200
    assert (await client.get("http://luthier/wp-login.php")).status_code == 404
    assert (await client.request("BREW", "/files/tea")).status_code == 405
    page = await scrape(admin)
    for text in (model.name, caller.project_id, caller.key_id, claim.job.id, "wp-login", "BREW", "tea"):
        assert text not in page.text
    assert page.value("luthier_http_requests_total", method="GET", route="none", status="404") == 1
    assert page.value("luthier_http_requests_total", method="other", route="/v1/files/{file_id}", status="405") == 1


async def test_tokens_are_counted_as_the_engine_says_them(
    client: httpx.AsyncClient, admin: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    assert (await scrape(admin)).value("luthier_tokens_total", kind="prompt", **BASE) == 0
    for _ in range(2):
        await client.post("/completions", json={"model": "luthier-tiny", "prompt": "Hello"})
    engine.script = answers(b'{"choices":[]}')  # without a word of what it cost
    await client.post("/completions", json={"model": "luthier-tiny", "prompt": "Hello"})
    page = await scrape(admin)
    assert page.value("luthier_tokens_total", kind="prompt", **BASE) == 2 * 3
    assert page.value("luthier_tokens_total", kind="completion", **BASE) == 2 * 2


async def test_tokens_of_a_stream_that_broke_off_are_counted_as_they_were_relayed(
    client: httpx.AsyncClient, admin: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    engine.script = streams(b'data: {"choices":[{"index":0,"text":" a"}]}\n\n' * 30, then=dies)
    await client.post("/completions", json={"model": "luthier-tiny", "prompt": "Hello", "stream": True})
    assert (await scrape(admin)).value("luthier_tokens_total", kind="completion", **BASE) == 30


async def test_each_engine_says_whether_it_is_there(admin: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    page = await scrape(admin)
    assert page.value("luthier_engine_up", url=engine.url, **BASE) == 1
    assert page.value("luthier_engine_up", url="http://127.0.0.1:1", **BASE) == 0


@pytest.mark.slow
async def test_redis_says_whether_it_is_there(
    ctx: Context, admin_key: str, valkey: Valkey, client_of: ClientOf
) -> None:
    for url, up in ((valkey.url, 1), ("redis://127.0.0.1:1", 0)):
        with_redis = create_context(ctx.settings.model_copy(update={"redis_url": url}))
        transport = httpx.ASGITransport(create_app(with_redis))
        headers = {"Authorization": f"Bearer {admin_key}"}
        async with httpx.AsyncClient(transport=transport, headers=headers) as admin:
            assert (await scrape(admin)).value("luthier_redis_up") == up
        await with_redis.close()


async def test_metrics_are_for_admins_only(app: FastAPI, client: httpx.AsyncClient, client_of: ClientOf) -> None:
    refused = await client.get(METRICS)
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "invalid_request_error")
    assert "luthierd keys create --admin" in refused.json()["error"]["message"]
    unknown = await client_of("sk-luthier-unknown").get(METRICS)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (401, "invalid_api_key")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as nobody:
        assert (await nobody.get(METRICS)).status_code == 401


async def test_a_revoked_admin_key_reads_nothing_more(
    ctx: Context, app: FastAPI, admin: httpx.AsyncClient, admin_key: str
) -> None:
    now = 100.0
    app.state.admins = Admins(KnownKeys(ctx, clock=lambda: now))
    await scrape(admin)
    revoked = next(key for key in await keys.list_keys(ctx) if key.role == "admin")
    assert await keys.revoke_key(ctx, revoked.id)
    now += CACHE_SECONDS
    assert (await admin.get(METRICS)).status_code == 401


async def test_workers_are_counted_by_whether_they_have_their_base_ready(
    ctx: Context, admin: httpx.AsyncClient
) -> None:
    for name, reason in (("one", ""), ("two", ""), ("three", "loading"), ("four", "its tokenizer cannot be loaded")):
        await claims.renew(ctx, WorkerState(name, "here", {"luthier-tiny": reason}), [])
    page = await scrape(admin)
    assert page.value("luthier_workers", ready="true", **BASE) == 2
    assert page.value("luthier_workers", ready="false", **BASE) == 2
