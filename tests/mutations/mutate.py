"""`make mutate`: breaks the product on purpose, one break at a time, and shows that the named test notices.

A break is an entry of `breaks.toml`: in `file`, `old` (which must occur exactly once) becomes `new`; then `test` must
fail, as it must pass without the break. Works on a copy of the tracked files; the tree itself is never touched.
"""

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
        unnoticed = [one for one in breaks if not notices(tree, one)]
    print(f"\n{len(breaks) - len(unnoticed)} of {len(breaks)} breaks are noticed")
    return len(unnoticed)


def copy_of_tree(target: Path) -> Path:
    """The tracked files, as they stand."""
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, names):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    return target


def notices(tree: Path, one: Break) -> bool:
    """Whether the test passes on the product and fails on the broken one."""
    path = tree / one.file
    whole = path.read_text(encoding="utf-8")
    if whole.count(one.old) != 1:
        raise SystemExit(f"{one.name}: {one.file} does not hold its text exactly once: {one.old!r}")
    before = run(tree, one.test)
    path.write_text(whole.replace(one.old, one.new), encoding="utf-8")
    after = run(tree, one.test)
    path.write_text(whole, encoding="utf-8")
    noticed = (before, after) == (0, FAILED)
    print(f"{'noticed' if noticed else f'UNNOTICED ({before}, {after})':10}  {one.name}: {one.test}", flush=True)
    return noticed


def run(tree: Path, test: str) -> int:
    """pytest's exit code for one test."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", test]
    return subprocess.run(
        command, cwd=tree, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=TEST_SECONDS, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
