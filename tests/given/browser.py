"""A real browser for tests of pages: the system's Chromium, driven by Playwright; what pages do wrong is kept."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.servers import missing

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# Playwright's own list, which one of ours replaces, and then the page of Chromium's that each window loads for its
# address field: half of the CPU time of a window, and no test sees it.
FEATURES_OFF = (
    "AvoidUnnecessaryBeforeUnloadCheckSync,DestroyProfileOnBrowserClose,HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,"
    "LensOverlay,MediaRouter,PaintHolding,ThirdPartyStoragePartitioning,AvoidCorsURLLoaderRestartOnRedirect,"
    "OptimizationHints,NetworkTimeServiceQuerying,AimEnabled,PreconnectToSearch,CDPScreenshotNewSurface,"
    "SkipListAccountsWithoutGaiaCookies,WebUIOmniboxPopup,WebUIOmniboxFullPopup,WebUIOmniboxAimPopup"
)
REMEDY = "run tests/servers/install_chromium.sh as root (make servers does)"
WAIT_MILLISECONDS = 15_000
TOO_WIDE = """() => new Promise((resolve) => {
  const found = () => document.documentElement.scrollWidth <= innerWidth ? [] :
    [...document.querySelectorAll("body *")]
      .filter((one) => one.getBoundingClientRect().right > innerWidth)
      .map((one) => `too wide: ${one.tagName} ${one.className} ${one.getBoundingClientRect().right}`);
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => resolve(found()))));
})"""

SHIFTED = """() => new Promise((resolve) => {
  let sum = 0;
  new PerformanceObserver((list) => { for (const one of list.getEntries()) sum += one.value; })
    .observe({type: "layout-shift", buffered: true});
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => resolve(sum))));
})"""


def chromium() -> str:
    """The program; where there is none, `missing`."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    return found or missing("Chromium", REMEDY)


@asynccontextmanager
async def opened_browser() -> AsyncIterator[Browser]:
    """One process tree, which ends with the block."""
    program = chromium()
    arguments = ["--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
    arguments.append(f"--disable-features={FEATURES_OFF}")
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Visit:
    """A tab of somebody's own browser, and what went wrong in it."""

    page: Page
    url: str  # of the service, without a path
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    async def open(self, path: str) -> None:
        await self.page.goto(self.url + path)

    async def sign_in(self, key: str, path: str = "/ui/jobs") -> None:
        await self.open(path)
        await self.page.get_by_label("API key").fill(key)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.page.wait_for_url(self.url + path)


@asynccontextmanager
async def visiting(browser: Browser, url: str, **options: object) -> AsyncIterator[Visit]:
    """A browser without cookies."""
    context: BrowserContext = await browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(WAIT_MILLISECONDS)
    page = await context.new_page()
    visit = Visit(page, url)
    page.on("console", lambda message: visit.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("request", lambda request: _note_foreign(visit, request.url))
    try:
        yield visit
    finally:
        await context.close()


def _note_foreign(visit: Visit, url: str) -> None:
    if urlsplit(url).netloc != urlsplit(visit.url).netloc and not url.startswith(("data:", "blob:")):
        visit.foreign.append(url)


async def too_wide(page: Page) -> list[str]:
    """What makes the page wider than its window, if anything does, once it has followed the window's last size."""
    found: list[str] = await page.evaluate(TOO_WIDE)
    return found


async def layout_shift(page: Page) -> float:
    """How much of what was shown has jumped since the page was opened: 0 for nothing; good pages stay below 0.1.

    The cumulative layout shift of https://web.dev/articles/cls, without its windows of time.
    """
    shifted: float = await page.evaluate(SHIFTED)
    return shifted
