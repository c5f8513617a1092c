"""axe-core in an open page: what people with disabilities cannot use there, by the rules of WCAG 2.2 A and AA."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from playwright.async_api import Page

from tests.servers import missing

SOURCE = Path(__file__).parents[1] / "servers" / "axe"
FOLDER = Path(__file__).parents[2] / ".cache" / "axe"
SCRIPT = FOLDER / "node_modules" / "axe-core" / "axe.min.js"
INSTALL_SECONDS = 300
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
FIND = """async (rules) => {
  const found = await axe.run(document, {runOnly: rules, resultTypes: ["violations"]});
  const serious = found.violations.filter((rule) => ["serious", "critical"].includes(rule.impact));
  const where = (node) => `${node.target} ${node.any.map((one) => one.message)}`;
  return serious.map((rule) => `${rule.id}: ${rule.nodes.map(where).slice(0, 4).join("; ")}`);
}"""


async def serious_faults(page: Page) -> list[str]:
    """Each rule that is broken seriously, and where."""
    await page.add_script_tag(path=_script())
    found: list[str] = await page.evaluate(FIND, RULES)
    return found


@cache
def _script() -> Path:
    """Fetched where it is missing or another version is locked."""
    kept = FOLDER / "package-lock.json"
    locked = (SOURCE / "package-lock.json").read_bytes()
    if SCRIPT.is_file() and kept.is_file() and kept.read_bytes() == locked:
        return SCRIPT
    if shutil.which("npm") is None:
        missing("axe-core", "install Node 20 or newer with npm")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCE / name, FOLDER)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(command, cwd=FOLDER, env=dict(os.environ), check=True, timeout=INSTALL_SECONDS)
    return SCRIPT
