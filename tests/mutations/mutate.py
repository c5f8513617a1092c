"""`make mutate`: breaks the product on purpose, one break at a time, and shows that the named test notices.

A break is an entry of `breaks.toml`: in `file`, `old` (which must occur exactly once) becomes `new`; then `test` must
fail, as it must pass without the break. Works on a copy of the tracked files; the tree itself is never touched.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST_SECONDS = 300
FAILED = 1  # pytest's exit code for failed tests; 2 and above are mistakes of ours


@dataclass(frozen=True)
class Break:
    """One deliberate mistake, of a kind that other servers make in silence."""

    name: str
    file: str
    old: str
    new: str
    test: str


def main() -> int:
    """Prints one line per break; answers how many went unnoticed."""
    breaks = [Break(**entry) for entry in tomllib.loads((Path(__file__).parent / "breaks.toml").read_text())["break"]]
    with tempfile.TemporaryDirectory(prefix="luthier-mutate-") as folder:
        tree = copy_of_tree(Path(folder) / "tree")
        whole = run(tree, *dict.fromkeys(one.test for one in breaks))
        if whole.returncode != 0:
            raise SystemExit(f"the product itself does not pass:\n{whole.stdout}")
        print(f"the tests of {len(breaks)} breaks pass without them", flush=True)
        unnoticed = [one for one in breaks if not notices(tree, one)]
    print(f"\n{len(breaks) - len(unnoticed)} of {len(breaks)} breaks are noticed")
    return len(unnoticed)


def copy_of_tree(target: Path) -> Path:
    """The tracked files, as they stand, and what was fetched for the tests."""
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, names):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    (target / ".cache").symlink_to(ROOT / ".cache")
    return target


def notices(tree: Path, one: Break) -> bool:
    """Whether the test fails on the broken product."""
    path = tree / one.file
    whole = path.read_text(encoding="utf-8")
    if whole.count(one.old) != 1:
        raise SystemExit(f"{one.name}: {one.file} does not hold its text exactly once: {one.old!r}")
    path.write_text(whole.replace(one.old, one.new), encoding="utf-8")
    code = run(tree, one.test).returncode
    path.write_text(whole, encoding="utf-8")
    noticed = code == FAILED
    print(f"{'noticed' if noticed else f'UNNOTICED ({code})':10}  {one.name}: {one.test}", flush=True)
    return noticed


def run(tree: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """pytest on these tests; a server that is missing is a failure."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests],
        cwd=tree, env=os.environ | {"CI": "true"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=TEST_SECONDS * len(tests), check=False,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
