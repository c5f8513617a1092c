"""Pictures of the dashboard: `python -m tests.pictures [FOLDER] [PAGE ...]`.

Without arguments it writes those that documents show, one of a terminal among them, into docs/pictures. With a folder
it writes every page at three widths, light and dark, to be looked at after a change.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from playwright.async_api import Browser

from service.api.app import create_app
from service.commands.doctor import examine
from service.dashboard.app import add_dashboard
from service.domain.memory import DeviceMemory
from service.domain.work import WorkerState
from service.installation.context import Context
from service.operations import keys, model_aliases
from service.settings import logs
from service.settings.settings import Settings
from service.work import claims
from tests.given.browser import opened_browser, too_wide, visiting
from tests.given.checks import claimed, create, work_through
from tests.given.command import in_terminal
from tests.given.installation import installed
from tests.given.served_api import served
from tests.given.terminal_picture import COLUMNS, as_page
from tests.given.work import claim_training
from tests.given.workshop import BASE, LAST_STEP, Workshop, finish, furnish, train

DOCS = Path(__file__).parents[1] / "docs" / "pictures"
WIDTHS = tuple(map(int, os.environ.get("WIDTHS", "360,768,1280").split(",")))
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
HEIGHT = 900
SHOWN: Mapping[str, tuple[str, int, Literal["light", "dark"]]] = {  # of the documents: page, width, scheme
    "job": ("job", 1280, "light"),
    "jobs-dark": ("jobs", 1280, "dark"),
    "models": ("models", 1280, "light"),
    "check": ("check", 1280, "light"),
}


async def main(folder: Path | None, names: list[str]) -> None:
    logs.configure("warning")
    with TemporaryDirectory(prefix="luthier-pictures-") as data:
        settings = Settings(data_dir=Path(data), engine_urls="http://127.0.0.1:1", lease_seconds=3600)
        async with installed(settings) as ctx:
            project = await keys.ensure_installation(ctx)
            assert project is not None
            await keys.create_project(ctx, "research")
            shop = await furnish(ctx, await keys.authenticate(ctx, project))
            caller = await keys.authenticate(ctx, project)
            await model_aliases.create(ctx, caller, "support", shop.model)
            states, memory = {BASE: ""}, {BASE: DeviceMemory("cuda", total_bytes=80 * 2**30, free_bytes=76 * 2**30)}
            await claims.renew(ctx, WorkerState("worker_7Yk2", "gpu-1", states, memory), [])
            check = await create(ctx, caller, shop.file, model=BASE)
            held = await claimed(ctx)
            assert held is not None
            await work_through(ctx, held)
            admin = await keys.create_key(ctx, "default", "admin", "the operator's")
            app = add_dashboard(create_app(ctx), partial(examine, settings))
            async with served(app) as base_url, opened_browser() as browser:
                url = base_url.removesuffix("/v1")
                if folder is None:
                    await _take_terminal(ctx, browser, url, project, DOCS / "terminal.png")
                    for picture, (page, width, scheme) in SHOWN.items():
                        await _take(
                            browser, url, admin, paths(shop, check)[page], width, scheme, DOCS / f"{picture}.png"
                        )
                    return
                for name, path in paths(shop, check).items():
                    if names and name not in names:
                        continue
                    for width in WIDTHS:
                        for scheme in SCHEMES:
                            target = folder / f"{name}-{width}-{scheme}.png"
                            await _take(browser, url, admin, path, width, scheme, target)


def paths(shop: Workshop, check: str) -> dict[str, str]:
    """Every page by the name of its picture."""
    return {
        "sign-in": "/ui/sign-in",
        "jobs": "/ui/jobs",
        "job": f"/ui/jobs/{shop.succeeded}",
        "job-running": f"/ui/jobs/{shop.running.job.id}",
        "new-job": f"/ui/jobs/new?again={shop.succeeded}",
        "files": "/ui/files",
        "file": f"/ui/files/{shop.file}",
        "check": f"/ui/checks/{check}",
        "playground": "/ui/playground",
        "models": "/ui/models",
        "compare": f"/ui/compare?job={shop.succeeded}&job={shop.other}",
        "system": "/ui/system",
        "keys": "/ui/keys",
        "job-failed": f"/ui/jobs/{shop.failed}",
    }


async def _take(
    browser: Browser, url: str, key: str, path: str, width: int, scheme: Literal["light", "dark"], target: Path
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    options = {"viewport": {"width": width, "height": HEIGHT}, "color_scheme": scheme, "reduced_motion": "reduce"}
    async with visiting(browser, url, **options) as visit:
        if path.endswith("/sign-in"):
            await visit.open(path)
        else:
            await visit.sign_in(key, path)
        await visit.page.wait_for_load_state("load")
        await visit.page.wait_for_timeout(600)  # curves are drawn after the page is there
        await visit.page.screenshot(path=target, full_page=True)
        wide = await too_wide(visit.page)
        for problem in (*visit.errors, *visit.foreign, *wide):
            sys.stderr.write(f"{target.name}: {problem}\n")


async def _take_terminal(ctx: Context, browser: Browser, url: str, key: str, target: Path) -> None:
    """A file that is checked, tuned on and followed to its end; the job is brought there as by a worker."""
    settings = {"LUTHIER_URL": url, "LUTHIER_API_KEY": key, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    options = ("--base", BASE, "--set", "lora.r=8", "--suffix", "support")
    async with in_terminal("tune", "examples/demo/training.jsonl", *options, "-y", **settings) as terminal:
        async with asyncio.timeout(60):
            while (check := await claimed(ctx)) is None:
                await asyncio.sleep(0.05)
        await work_through(ctx, check)
        await terminal.shows("Created ftjob-")
        held = await claim_training(ctx, "one")
        assert held is not None
        await train(held, 1, LAST_STEP)
        await terminal.shows(f"{LAST_STEP}/{LAST_STEP}")
        await finish(held, ctx)
        assert await terminal.ends() == 0
    page = await browser.new_page(viewport={"width": 960, "height": 400}, device_scale_factor=1.5)
    typed = f"luthier tune examples/demo/training.jsonl {' '.join(options)} -y"
    await page.set_content(as_page([(typed, terminal.shown)]))
    await page.locator("#screen").screenshot(path=target)
    await page.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, sys.argv[2:]))
