"""The dashboard in a real browser: what people do on its pages, and that no page does what it should not.

One service in this process, one browser; a job's progress is written as a worker writes it, an engine is scripted.
Every test ends with: no error in the console, no violation of the page's policy, no request beyond the host.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, expect

from service.api.app import create_app
from service.dashboard.app import add_dashboard
from service.dashboard.web import packages
from service.domain import event as wording
from service.domain.errors import JobError
from service.domain.model import Model
from service.installation.context import Context
from service.operations import keys, model_aliases
from service.operations.import_work import IMPORT, HeldImport
from service.settings.settings import Settings
from service.work import claims
from tests.given.axe import serious_faults
from tests.given.browser import Visit, layout_shift, opened_browser, too_wide, visiting
from tests.given.chat_chunks import DONE, chunk
from tests.given.checks import claimed, create, work_through
from tests.given.installation import installed
from tests.given.scripted_engine import ScriptedEngine, scripted_engine
from tests.given.served_api import served
from tests.given.sessions import expire_sessions
from tests.given.workshop import BASE, Workshop, finish, furnish, held_for_training, stored, train
from tests.servers import missing

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
ROWS = Path(__file__).parents[2] / "examples" / "demo" / "training.jsonl"


@dataclass
class Site:
    """The service, who may sign in, and the browser."""

    ctx: Context
    url: str
    key: str
    stranger_key: str
    admin_key: str
    shop: Workshop
    check: str  # that is done
    engine: ScriptedEngine
    browser: Browser

    @asynccontextmanager
    async def visit(self, key: str | None = None, path: str = "/ui/jobs", **options: object) -> AsyncIterator[Visit]:
        """A browser of its own, signed in with the key, that does nothing wrong until the block ends."""
        async with visiting(self.browser, self.url, **options) as visit:
            if key is not None:
                await visit.sign_in(key, path)
            yield visit
            assert visit.errors == []
            assert visit.foreign == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    if not packages.installed():
        missing("the dashboard's scripts", "run make install")
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(opened_browser())
        engine = await stack.enter_async_context(scripted_engine())
        folder = tmp_path_factory.mktemp("dashboard")
        settings = Settings(data_dir=folder, engine_urls=engine.url, lease_seconds=3600)  # nobody renews them here
        ctx = await stack.enter_async_context(installed(settings))
        key = await keys.ensure_installation(ctx)
        assert key is not None
        caller = await keys.authenticate(ctx, key)
        file = await stored(ctx, caller, f"{'f' * 200}.jsonl", b"{}")
        await finish(await held_for_training(ctx, caller, file, "s" * 64), ctx)  # names as long as they may be
        shop = await furnish(ctx, caller)
        check = await create(ctx, caller, shop.file, model=BASE)
        held = await claimed(ctx)
        assert held is not None
        await work_through(ctx, held)
        base_url = await stack.enter_async_context(served(add_dashboard(create_app(ctx))))
        yield Site(
            ctx,
            base_url.removesuffix("/v1"),
            key,
            await keys.create_key(ctx, "another project", "project"),
            await keys.create_key(ctx, "default", "admin"),
            shop,
            check,
            engine,
            browser,
        )


async def test_somebody_signs_in_and_out(site: Site) -> None:
    async with site.visit() as visit:
        await visit.open("/")
        await visit.page.wait_for_url("**/ui/sign-in**")
        await visit.page.get_by_label("API key").fill(site.key)
        await visit.page.keyboard.press("Enter")
        await expect(visit.page.get_by_role("heading", name="Jobs")).to_be_visible()
        await visit.page.get_by_role("button", name="Sign out").click()
        await expect(visit.page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_a_wrong_key_is_said_where_it_was_typed(site: Site) -> None:
    async with visiting(site.browser, site.url) as visit:
        await visit.open("/ui/sign-in")
        await visit.page.get_by_label("API key").fill("sk-luthier-wrong")
        await visit.page.get_by_role("button", name="Sign in").click()
        await expect(visit.page.get_by_role("alert")).to_contain_text("not valid")
        assert await visit.page.get_by_label("API key").get_attribute("aria-invalid") == "true"
        assert visit.foreign == [] and all("401" in error for error in visit.errors)  # Chromium logs a 401 itself


async def test_the_curve_of_a_running_job_grows_while_somebody_looks(site: Site) -> None:
    caller = await keys.authenticate(site.ctx, site.key)
    held = await held_for_training(site.ctx, caller, site.shop.file, "watched")
    await train(held, 1, 5)
    async with site.visit(site.key, f"/ui/jobs/{held.job.id}") as visit:
        curve = visit.page.locator("#curve")
        await expect(curve).to_have_attribute("data-points", "5")
        await train(held, 6, 20)
        await expect(curve).to_have_attribute("data-points", "20")
        await expect(visit.page.locator(".facts")).to_contain_text("20 of 240")
        await expect(curve.locator("canvas")).to_be_visible()
        await visit.page.get_by_label("Metric").select_option("mean_token_accuracy")
        await visit.page.get_by_label("Log scale").check()
        await expect(curve.locator(".u-legend")).to_contain_text("train mean token accuracy")
        for metric in ("learning rate", "gradient norm", "tokens per second"):
            await visit.page.get_by_label("Metric").select_option(metric)
            await expect(curve.locator(".u-legend")).to_contain_text(metric)


async def test_a_job_is_cancelled_after_a_question(site: Site) -> None:
    caller = await keys.authenticate(site.ctx, site.key)
    held = await held_for_training(site.ctx, caller, site.shop.file, "unwanted")
    async with site.visit(site.key, f"/ui/jobs/{held.job.id}") as visit:
        asked: list[str] = []

        async def accept(dialog) -> None:  # type: ignore[no-untyped-def]
            asked.append(dialog.message)
            await dialog.accept()

        visit.page.on("dialog", accept)
        await visit.page.get_by_role("button", name="Cancel").click()
        await expect(visit.page.locator("h1 .badge")).to_have_text("cancelled")
        await expect(visit.page.locator("#events")).to_contain_text("The job was cancelled")
        assert len(asked) == 1 and "checkpoints stay" in asked[0]
        await expect(visit.page.get_by_role("button", name="Cancel")).to_have_count(0)


async def test_the_list_changes_by_itself_and_keeps_the_keyboards_place(site: Site) -> None:
    async with site.visit(site.key) as visit:
        link = visit.page.get_by_role("link", name="rank-32")
        await link.focus()
        await train(site.shop.running, 151, 152)
        row = visit.page.locator(f"[data-job='{site.shop.running.job.id}']")
        await expect(row).to_contain_text("152 / 240")
        await expect(link).to_be_focused()
        await visit.page.keyboard.press("Enter")
        await expect(visit.page.get_by_role("heading", name="rank-32")).to_be_visible()


async def test_a_file_is_uploaded_and_a_job_created_from_it(site: Site) -> None:
    async with site.visit(site.key, "/ui/files") as visit:
        await visit.page.locator("#file").set_input_files(ROWS)
        await expect(visit.page.get_by_role("heading", name="training.jsonl")).to_be_visible()
        await expect(visit.page.locator(".rows > li")).to_have_count(10)
        await visit.page.get_by_role("link", name="Train on it").click()
        await visit.page.get_by_label("Suffix").fill("by-hand")
        await visit.page.get_by_label("Tuning").select_option("prefix")
        await visit.page.get_by_label("num_virtual_tokens").fill("8")
        await expect(visit.page.locator("#request-curl")).to_contain_text('"num_virtual_tokens": 8')
        await visit.page.get_by_role("button", name="Check it first").click()
        await expect(visit.page.get_by_role("heading", name="Check for luthier-tiny")).to_contain_text("queued")
        held = await claimed(site.ctx)
        assert held is not None
        await work_through(site.ctx, held)
        await expect(visit.page.locator("#check-state .badge")).to_have_text("valid")
        await expect(visit.page.get_by_label("Suffix")).to_have_value("by-hand")
        await visit.page.get_by_label("n_epochs").fill("2")
        await visit.page.keyboard.press("Tab")
        await expect(visit.page.get_by_role("heading", name="Check for luthier-tiny")).to_contain_text("queued")
        held = await claimed(site.ctx)
        assert held is not None
        await work_through(site.ctx, held)
        await expect(visit.page.locator("#check-state .facts").first).to_contain_text("n_epochs2")
        await visit.page.get_by_role("button", name="Create the job").click()
        await expect(visit.page.get_by_role("heading", name="by-hand")).to_be_visible()
        await expect(visit.page.locator("h1 .badge")).to_have_text("validating files")


async def test_a_check_shows_which_text_of_a_row_is_trained_once_a_worker_is_done(site: Site) -> None:
    async with site.visit(site.key, f"/ui/files/{site.shop.file}") as visit:
        await visit.page.locator("select[name=objective]").select_option("supervised")
        await visit.page.get_by_role("button", name="Show what is trained").click()
        await expect(visit.page.get_by_role("heading", name="Check for luthier-tiny")).to_contain_text("queued")
        held = await claimed(site.ctx)
        assert held is not None
        await work_through(site.ctx, held)
        await expect(visit.page.locator("#masks mark").first).to_contain_text("repair")
        await visit.page.get_by_role("button", name="Next").click()
        await expect(visit.page.locator("#masks")).to_contain_text("6 to 10 of 450")


async def test_base_and_tuned_model_answer_side_by_side_as_they_generate(site: Site) -> None:
    spoken = [{"token": piece, "logprob": -0.1, "bytes": None, "top_logprobs": []} for piece in ("ship", "ping")]
    goes_on = asyncio.Event()

    async def script(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk({"content": "ship"}, logprobs={"content": [spoken[0]]}))
        async with asyncio.timeout(20):
            await goes_on.wait()
        for event in (chunk({"content": "ping"}, logprobs={"content": [spoken[1]]}), chunk({}, "stop"), DONE):
            await response.write(event)
        return response

    site.engine.script = script
    async with site.visit(site.key, "/ui/playground") as visit:
        await visit.page.get_by_label("Message", exact=True).fill("Can you ship a guitar to Norway?")
        await visit.page.get_by_label("Most tokens").fill("")
        await visit.page.get_by_role("button", name="Ask both").click()
        answers = visit.page.locator(".answer")
        await expect(answers).to_have_text(["ship", "ship"])
        goes_on.set()
        await expect(answers).to_have_text(["shipping", "shipping"])
        assert "90.5 %" in (await answers.last.locator(".token").first.get_attribute("title") or "")
    assert {asked["model"] for asked in site.engine.seen[-2:]} == {"luthier-tiny", site.shop.model}
    assert all("max_tokens" not in asked and asked["temperature"] == 0 for asked in site.engine.seen[-2:])


async def test_jobs_are_compared_on_one_axis(site: Site) -> None:
    async with site.visit(site.key, "/ui/compare") as visit:
        for name in ("workshop", "half-rate"):
            await visit.page.get_by_label(name).check()
        await visit.page.get_by_role("button", name="Compare").click()
        await expect(visit.page.locator("#compare-chart")).to_have_attribute("data-lines", "2")
        await expect(visit.page.locator(".pairs")).to_contain_text("lora.r")
        await visit.page.get_by_label("Over").select_option("share")
        await expect(visit.page.locator(".u-legend")).to_contain_text("share")
        await visit.page.get_by_label("Over").select_option("trained tokens")
        await expect(visit.page.locator(".u-legend")).to_contain_text("tokens")


async def test_a_name_is_promoted_and_rolled_back(site: Site) -> None:
    async with site.visit(site.key, "/ui/models") as visit:
        page = visit.page
        await page.get_by_label("New name").fill("support")
        await page.get_by_label("stands for").select_option(site.shop.model)
        await page.get_by_role("button", name="Add").click()
        name = page.locator(".aliases > li")
        await expect(name).to_contain_text(site.shop.model)
        await page.get_by_label("Model for support").select_option(index=3)
        await page.get_by_role("button", name="Promote").click()
        await expect(name).to_contain_text("before: ft:luthier-tiny")
        await page.get_by_role("button", name="Roll back").click()
        await expect(name.locator("p.mono")).to_have_text(site.shop.model)
        await visit.open(f"/ui/jobs/{site.shop.other}")
        await page.get_by_role("button", name="Promote step 80").click()
        await expect(name.locator("p.mono")).to_contain_text("ckpt-step-80")
        page.once("dialog", lambda dialog: dialog.dismiss())
        await page.get_by_role("button", name="Delete the name support").click()
        await expect(name).to_have_count(1)
        page.once("dialog", lambda dialog: dialog.accept())
        await page.get_by_role("button", name="Delete the name support").click()
        await expect(page.locator("#said")).to_have_text("The name support is deleted.")
        await expect(name).to_have_count(0)


async def test_an_adapter_is_sent_and_what_becomes_of_it_is_shown(site: Site) -> None:
    async with site.visit(site.key, "/ui/models") as visit:
        page = visit.page

        async def send() -> HeldImport:
            chosen = {"name": "adapter.zip", "mimeType": "application/zip", "buffer": b"PK\x05\x06" + bytes(18)}
            await page.get_by_label("Zip archive").set_input_files([chosen])  # type: ignore[list-item]
            await page.get_by_role("button", name="Import").click()
            await expect(page.locator("#import-said")).to_contain_text("The import is")
            claim = await claims.claim(site.ctx, IMPORT, "one", [BASE])
            assert claim is not None
            return HeldImport(site.ctx, claim)

        await (await send()).fail(JobError("invalid_adapter", "The archive has no adapter_config.json.", "file"))
        await expect(page.locator("#import-problem")).to_contain_text("no adapter_config.json")
        held = await send()
        made, name = held.imported, f"ft:{BASE}:luthier:mine:AAAAAAAA"
        model = Model(name, made.project_id, None, made.base, "final", 0, "lora", 1, import_id=made.id)
        figures = {"served_effect": 0.4, "trained_effect": 0.4, "tokens": 9}
        await held.finish(model, wording.imported_agrees(figures, decisive=True), 1.0)
        row = page.locator(".tree > li", has_text=name)
        await expect(row).to_contain_text("imported")
        await expect(row.get_by_role("link", name="Job of")).to_have_count(0)


async def test_two_projects_cannot_see_each_other(site: Site) -> None:
    async with site.visit(site.stranger_key) as visit:
        await expect(visit.page.get_by_role("heading", name="No jobs yet")).to_be_visible()
        response = await visit.page.request.get(f"{site.url}/ui/jobs/{site.shop.succeeded}")
        assert response.status == 404


async def test_an_admin_looks_at_one_project_after_the_other(site: Site) -> None:
    async with site.visit(site.admin_key) as visit:
        await expect(visit.page.get_by_role("link", name="rank-32")).to_be_visible()
        await visit.page.get_by_label("Project").select_option("another project")
        await expect(visit.page.get_by_role("heading", name="No jobs yet")).to_be_visible()


async def test_a_sign_in_that_ends_under_an_open_page_leads_to_the_form_and_back(site: Site) -> None:
    async with visiting(site.browser, site.url) as visit:
        await visit.sign_in(site.key)
        await expire_sessions(site.ctx)
        await visit.page.wait_for_url("**/ui/sign-in?**")
        await expect(visit.page.get_by_role("status").first).to_contain_text("has ended")
        assert visit.foreign == [] and all("401" in error for error in visit.errors)
        await visit.page.get_by_label("API key").fill(site.key)
        await visit.page.get_by_role("button", name="Sign in").click()
        await expect(visit.page.get_by_role("heading", name="Jobs")).to_be_visible()


async def test_a_question_for_two_models_is_there_again_after_signing_in(site: Site) -> None:
    async with visiting(site.browser, site.url) as visit:
        await visit.sign_in(site.key, "/ui/playground")
        await expire_sessions(site.ctx)
        message = visit.page.get_by_label("Message", exact=True)
        await message.fill("Can you ship a guitar to Norway?")
        await visit.page.get_by_role("button", name="Ask both").click()
        await visit.page.get_by_label("API key").fill(site.key)
        await visit.page.get_by_role("button", name="Sign in").click()
        await expect(message).to_have_value("Can you ship a guitar to Norway?")


async def test_the_keyboard_reaches_the_content_and_every_control(site: Site) -> None:
    async with site.visit(site.key, f"/ui/jobs/{site.shop.running.job.id}") as visit:
        page = visit.page
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#main")).to_be_focused()
        controls = page.locator("#main :is(a[href], button, select, input:not([type=hidden])):visible:enabled")
        wanted = set(await controls.evaluate_all("found => found.map((one) => one.id || one.textContent.trim())"))
        reached = set()
        for _ in range(len(wanted) + 10):
            await page.keyboard.press("Tab")
            reached.add(await page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        assert wanted <= reached


WIDTHS = (360, 768, 1280)
NARROWEST = 320  # where nothing may be too wide either (WCAG 2.2, 1.4.10)


async def test_axe_finds_no_serious_fault_nothing_is_too_wide_and_nothing_jumps(site: Site) -> None:
    job, failed, running = site.shop.succeeded, site.shop.failed, site.shop.running.job.id
    compared = f"/ui/compare?job={job}&job={site.shop.other}"
    paths = ["/ui/jobs", f"/ui/jobs/{job}", f"/ui/jobs/{failed}", f"/ui/jobs/new?again={job}", "/ui/files"]
    paths += [f"/ui/files/{site.shop.file}", "/ui/models", "/ui/playground", compared, "/ui/system", "/ui/keys"]
    paths += ["/ui/jobs/nothing", f"/ui/checks/{site.check}", f"/ui/jobs/{running}"]
    await model_aliases.create(site.ctx, await keys.authenticate(site.ctx, site.key), "n" * 64, site.shop.model)
    async with visiting(site.browser, site.url, bypass_csp=True, reduced_motion="reduce") as visit:
        await visit.open("/ui/sign-in")
        found = {"/ui/sign-in": await serious_faults(visit.page)}
        await visit.sign_in(site.admin_key)
        for path in paths:
            await visit.page.set_viewport_size({"width": NARROWEST, "height": 900})
            await visit.open(path)  # a page that becomes narrow may be laid out otherwise than one that is
            assert await too_wide(visit.page) == [], (path, NARROWEST)
            await visit.page.set_viewport_size({"width": WIDTHS[-1], "height": 720})
            await visit.open(path)
            assert await layout_shift(visit.page) < 0.1, path
            found[path] = []
            for scheme in ("light", "dark"):
                await visit.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                for width in WIDTHS if scheme == "light" else WIDTHS[:1]:
                    await visit.page.set_viewport_size({"width": width, "height": 900})
                    assert await too_wide(visit.page) == [], (path, width)
                    found[path] += await serious_faults(visit.page)
    assert {path: faults for path, faults in found.items() if faults} == {}


async def test_pages_of_a_new_project_say_what_to_do_and_have_no_serious_fault(site: Site) -> None:
    async with visiting(site.browser, site.url, bypass_csp=True) as visit:
        await visit.sign_in(site.stranger_key)
        for name, command in (("jobs", "luthier tune"), ("files", "/files"), ("models", "luthier tune")):
            await visit.open(f"/ui/{name}")
            await expect(visit.page.locator("pre").last).to_contain_text(command)
            await expect(visit.page.get_by_role("button", name="Copy").last).to_be_visible()
            assert await serious_faults(visit.page) == []
