"""Pages of jobs: the list and its size, one job, what may be done to it, and that projects are kept apart."""

from html import unescape
from urllib.parse import quote

import httpx

from service.dashboard.routes.jobs import PAGE_JOBS
from service.dashboard.web.charts import sparkline
from service.installation.context import Context
from service.operations import curves, jobs, model_aliases
from service.operations.curves import POINTS, SPARKLINE_POINTS, spread
from service.operations.keys import Caller
from service.operations.progress import StepRecord
from tests.given.many_jobs import add_many
from tests.given.statements import statements
from tests.given.stored_jobs import add_job, claimed
from tests.given.visitors import csrf_of
from tests.given.workshop import furnish, held_for_training, stored, train

STATEMENTS = 12  # of a page of the list, BEGINs included


async def test_a_new_project_is_shown_the_next_step(member: httpx.AsyncClient) -> None:
    text = (await member.get("/ui/jobs")).text
    assert "No jobs yet" in text and "luthier tune" in text and "http://luthier/v1" in text


async def test_the_list_shows_jobs_in_every_state_with_their_curves(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    shop = await furnish(ctx, caller)
    text = (await member.get("/ui/jobs")).text
    for status in ("queued", "running", "paused", "succeeded", "failed"):
        assert f">{status}</span>" in text, status
    assert text.count("<polyline") == 4
    assert "150 / 240 · 1 min left" in text
    assert shop.queued in text


async def test_the_list_is_sent_again_only_when_it_has_changed(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    held = await held_for_training(ctx, caller, await stored(ctx, caller, "a.jsonl", b"{}"))
    url = (await member.get("/ui/jobs")).text.partition('hx-get="')[2].partition('"')[0].replace("&amp;", "&")
    assert (await member.get(url)).status_code == 204
    await train(held, 1, 3)
    changed = await member.get(url)
    assert changed.status_code == 200 and "3 / 240" in changed.text and "<html" not in changed.text


def newest(listed: httpx.Response) -> str:
    return listed.text.partition('data-job="')[2].partition('"')[0]


async def test_ten_thousand_jobs_are_shown_in_pages(member: httpx.AsyncClient, ctx: Context, caller: Caller) -> None:
    await add_many(ctx, caller, 10_000, num_steps=40)
    with statements(ctx) as sent:
        response = await member.get("/ui/jobs")
    assert len(sent) <= STATEMENTS and all("SELECT count" not in statement for statement in sent)
    assert len(response.content) < 300_000
    assert response.text.count('class="job"') == PAGE_JOBS
    for path in (
        "/ui/compare",
        "/ui/jobs/new",
        "/ui/models",
        "/ui/system",
        "/ui/playground",
        f"/ui/jobs/{newest(response)}",
    ):
        with statements(ctx) as sent:
            other = await member.get(path)
        assert other.status_code == 200 and len(other.content) < 300_000 and len(sent) <= 3 * STATEMENTS, path
    older = response.text.partition('id="older"')[2].partition('href="')[2].partition('"')[0]
    assert (await member.get(older)).text.count('class="job"') == PAGE_JOBS


async def test_a_job_shows_its_model_checkpoints_settings_and_agreement(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    shop = await furnish(ctx, caller)
    text = (await member.get(f"/ui/jobs/{shop.succeeded}")).text
    assert shop.model in text
    assert text.count("ckpt-step-") >= 2
    assert "0.4213 served, 0.4209 trained" in text
    rank = text.partition(">lora.r</th>")
    assert rank[0].rstrip().endswith('rank of A and B"') and rank[2].startswith('<td>8</td><td class="muted">16</td>')
    assert "workshop.jsonl" in text
    assert f'href="/ui/v1/models/{quote(shop.model)}/content" download' in text


async def test_a_job_says_whose_key_created_it(member: httpx.AsyncClient, ctx: Context, caller: Caller) -> None:
    job = (await held_for_training(ctx, caller, await stored(ctx, caller, "a.jsonl", b"{}"))).job
    assert (job.key_id, job.key_name) == (caller.key_id, "created at the first start")
    for path in ("", f"/{job.id}"):
        assert "created at the first start" in (await member.get(f"/ui/jobs{path}")).text
    told = (await member.get(f"/ui/v1/fine_tuning/jobs/{job.id}")).json()
    assert told["api_key"] == {"id": caller.key_id, "name": "created at the first start"}


async def test_a_checkpoint_is_promoted_where_it_is_listed(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    shop = await furnish(ctx, caller)
    path = f"/ui/jobs/{shop.succeeded}"
    nameless = (await member.get(path)).text
    assert f"/ui/models?model={quote(shop.model)}" in nameless and "/ui/models/promote" not in nameless
    await model_aliases.create(ctx, caller, "support", "luthier-tiny")
    listed = (await member.get(path)).text.partition('action="/ui/models/promote"')[2]
    model = unescape(listed.partition('name="model" value="')[2].partition('"')[0])
    assert model == shop.model
    form = {"csrf": await csrf_of(member), "model": model, "name": "support"}
    assert (await member.post("/ui/models/promote", data=form)).headers["location"] == "/ui/models"
    assert (await model_aliases.retrieve(ctx, caller, "support")).model == shop.model
    refused = await member.post("/ui/models/promote", data=form | {"model": "ft:nothing"})
    assert refused.status_code == 303 and "ft:nothing" in (await member.get(refused.headers["location"])).text


async def test_a_failed_job_says_why_and_what_to_do(member: httpx.AsyncClient, ctx: Context, caller: Caller) -> None:
    shop = await furnish(ctx, caller)
    text = (await member.get(f"/ui/jobs/{shop.failed}")).text
    assert "write &#39;assistant&#39;" in text and "Change what it names" in text


async def test_a_job_is_paused_resumed_and_cancelled(member: httpx.AsyncClient, ctx: Context, caller: Caller) -> None:
    job = (await claimed(ctx, caller)).job
    headers = {"X-CSRF-Token": await csrf_of(member), "HX-Request": "true"}
    paused = await member.post(f"/ui/jobs/{job.id}/pause", headers=headers)
    assert ">pausing</span>" in paused.text
    resumed = await member.post(f"/ui/jobs/{job.id}/resume", headers=headers)
    assert ">running</span>" in resumed.text
    cancelled = await member.post(f"/ui/jobs/{job.id}/cancel", headers=headers)
    assert ">cancelled</span>" in cancelled.text and "/cancel" not in cancelled.text
    again = await member.post(f"/ui/jobs/{job.id}/cancel", headers=headers)
    assert again.status_code == 200 and "cannot be cancelled" in again.text
    plain = await member.post(f"/ui/jobs/{job.id}/cancel", data={"csrf": headers["X-CSRF-Token"]})
    assert plain.headers["location"] == f"/ui/jobs/{job.id}"
    assert "cannot be cancelled" in (await member.get(plain.headers["location"])).text


async def test_another_project_sees_nothing_of_a_job(
    foreigner: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    job = await add_job(ctx, caller)
    assert job.id not in (await foreigner.get("/ui/jobs")).text
    headers = {"X-CSRF-Token": await csrf_of(foreigner)}
    for path in ("", "/state", "/checkpoints", "/curve"):
        assert (await foreigner.get(f"/ui/jobs/{job.id}{path}")).status_code == 404, path
    assert (await foreigner.post(f"/ui/jobs/{job.id}/cancel", headers=headers)).status_code == 404
    assert (await foreigner.get(f"/ui/v1/fine_tuning/jobs/{job.id}")).status_code == 404


async def test_a_curve_has_every_step_of_a_short_job_and_where_its_stream_begins(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    held = await held_for_training(ctx, caller, await stored(ctx, caller, "a.jsonl", b"{}"))
    await train(held, 1, 20)
    found = (await member.get(f"/ui/jobs/{held.job.id}/curve")).json()
    assert found["steps"] == list(range(1, 21))
    assert [step for step, loss in zip(found["steps"], found["series"]["valid_loss"], strict=True) if loss] == [10, 20]
    assert len(found["series"]["train_loss"]) == 20
    await train(held, 21, 21)
    events = f"/ui/v1/fine_tuning/jobs/{held.job.id}/events?stream=true&after={found['after']}"
    await jobs.cancel(ctx, caller, held.job.id)  # so that the stream ends
    told = (await member.get(events)).text
    assert told.count("data: {") == 2 and '"step":21' in told and told.endswith("data: [DONE]\n\n")


async def test_a_long_job_is_sampled_and_keeps_its_validations(ctx: Context, caller: Caller) -> None:
    held = await held_for_training(ctx, caller, await stored(ctx, caller, "a.jsonl", b"{}"))
    last = 3 * POINTS
    plain = {"total_steps": last, "train_loss": 1.0}
    odd = next(step for step in range(1000, last) if step not in spread(last, POINTS))
    records = [
        StepRecord(step, step, {"step": step, **plain, **({"valid_loss": 2.0} if step == odd else {})})
        for step in range(1, last + 1)
    ]
    await held.record_steps(records, 1.0)
    found = (await curves.curve(ctx, caller, held.job.id)).points
    steps = [point["step"] for point in found]
    assert steps == sorted(set(steps)) and steps[0] == 1 and steps[-1] == last
    assert odd in steps and len(steps) == POINTS + 1
    line = await curves.sparklines(ctx, caller, [(await curves.curve(ctx, caller, held.job.id)).job])
    assert len(line[held.job.id]) == SPARKLINE_POINTS


def test_a_sparkline_fills_its_height_and_stays_inside() -> None:
    drawn = sparkline([3.0, 1.0, 2.0])
    assert drawn is not None and drawn.points == "0.0,2.0 60.0,26.0 120.0,14.0"
    flat = sparkline([1.0, 1.0])
    assert flat is not None and flat.points == "0.0,26.0 120.0,26.0"
    assert sparkline([1.0]) is None
