"""Checks on pages: what a worker found, which tokens of each row are trained, and a job that is created like it."""

from dataclasses import replace

import httpx

from service.dashboard.web.job_form import body_of, filled_from
from service.domain.memory import DeviceMemory
from service.domain.work import WorkerState
from service.installation.context import Context
from service.operations import checks
from service.operations.keys import Caller
from service.work import claims
from tests.given.checks import claimed, work_through
from tests.given.stored_jobs import add_measured
from tests.given.visitors import csrf_of
from tests.given.workshop import ROWS, stored


async def _checked(member: httpx.AsyncClient, ctx: Context, caller: Caller, content: bytes, **form: str) -> str:
    """The page's path of a check that a worker has done."""
    file = await stored(ctx, caller, "a.jsonl", content)
    sent = {"csrf": await csrf_of(member), "training_file": file, "model": "luthier-tiny", **form}
    path: str = (await member.post("/ui/checks", data=sent)).headers["location"]
    assert "A worker looks at every line" in (await member.get(path)).text
    held = await claimed(ctx)
    assert held is not None
    await work_through(ctx, held)
    return path


async def test_every_row_shows_which_of_its_text_is_trained(
    member: httpx.AsyncClient, foreigner: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    path = await _checked(member, ctx, caller, ROWS.read_bytes())
    text = (await member.get(path)).text
    assert ">valid<" in text and "1 to 5 of 450" in text and text.count("<rect") > 1
    assert "How long the job takes is unknown" in text and "<dt>Duration" not in text
    for seconds in (20, 22, 21):
        await add_measured(ctx, caller, "luthier-tiny", seconds)
    assert "<dt>Trained parameters" in text and "Free beside the base" not in text
    memory = {"luthier-tiny": DeviceMemory("cuda", 2**36, 2**35)}
    await claims.renew(ctx, WorkerState("one", "here", {"luthier-tiny": ""}, memory), [])
    known = (await member.get(await _checked(member, ctx, caller, ROWS.read_bytes()))).text
    assert "32 GiB of 64 GiB" in known and ">fits<" in known
    assert "<dt>Duration" in known and "90 % of such jobs" in known and "unknown" not in known
    first = text.partition('class="mask')[2].partition("</p>")[0]
    assert "<mark>repair" in first and "hole in the side" in first.partition("<mark>")[0]
    after = (await member.get(f"{path}/rows?start=445")).text
    assert "446 to 450 of 450" in after and "rows-after" not in after and "start=440" in after
    for start in (450, 10**30, -1):
        assert (await member.get(f"{path}/rows?start={start}")).status_code == 200
    for foreign in (path, f"{path}/state", f"{path}/rows"):
        assert (await foreigner.get(foreign)).status_code == 404


async def test_bad_lines_are_shown_with_what_to_do(member: httpx.AsyncClient, ctx: Context, caller: Caller) -> None:
    content = ROWS.read_bytes().replace(b'"assistant"', b'"asistant"', 1)
    text = (await member.get(await _checked(member, ctx, caller, content))).text
    assert ">not valid<" in text and "asistant" in text and "What is trained" not in text
    assert '<td class="number">1</td>' in text.partition("What to do")[2]


async def test_a_job_is_created_as_it_was_checked(member: httpx.AsyncClient, ctx: Context, caller: Caller) -> None:
    path = await _checked(member, ctx, caller, ROWS.read_bytes(), **{"tuning": "lora", "tuning.r": "4"})
    check = await checks.retrieve(ctx, caller, path.rpartition("/")[2])
    assert body_of(filled_from(check))["tuning"] == {"type": "lora", "lora": {"r": 4}}
    served = replace(check, tuning=check.tuning | {"serve_as": "lora", "serve_rank": 2, "serve_min_share": 0.5})
    asked = {"type": "lora", "lora": {"r": 4}, "serve_rank": 2, "serve_min_share": 0.5}
    assert body_of(filled_from(served))["tuning"] == asked
    asked = (await member.get(path)).text.partition('id="train"')[2].partition('href="')[2].partition('"')[0]
    assert 'name="tuning.r" value="4"' in (await member.get(asked)).text


async def test_a_check_is_shown_on_the_page_that_asked_for_it(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    file = await stored(ctx, caller, "a.jsonl", ROWS.read_bytes())
    page = f"/ui/files/{file}"
    assert '<div id="check-state"></div>' in (await member.get(page)).text
    headers = {"HX-Request": "true", "X-CSRF-Token": await csrf_of(member)}
    asked = await member.post("/ui/checks", data={"training_file": file, "model": "luthier-tiny"}, headers=headers)
    assert "Check for luthier-tiny" in asked.text and "embedded=true" in asked.text and "<html" not in asked.text
    held = await claimed(ctx)
    assert held is not None
    await work_through(ctx, held)
    text = (await member.get(page)).text
    assert "<mark>repair" in text and "1 to 5 of 450" in text
    refused = await member.post("/ui/checks", data={"training_file": file, "model": "none-such"}, headers=headers)
    assert refused.status_code == 200 and 'role="alert"' in refused.text and "none-such" in refused.text
