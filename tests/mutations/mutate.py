"""`make mutate`: breaks the product on purpose, one break at a time, and shows that the named test notices.

A break is an entry of `breaks.toml`: in `file`, `old` (which must occur exactly once) becomes `new`; then `test` must
fail, as it must pass without the break. Works on a copy of the tracked files; the tree itself is never touched.

First every break is tried; in the end one run shows that the tests of those that were noticed pass without them. A run
may be interrupted: what it has shown is remembered in `.cache/`, until the break's entry, the file that it breaks, or
the file of its test changes. What they import may have changed all the same, so `--all` (`make mutate ALL=1`) forgets
what is remembered.
"""

import argparse
import hashlib
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal, NoReturn

import pytest

ROOT = Path(__file__).parents[2]
REMEMBERED = ROOT / ".cache" / "mutations.txt"
TEST_SECONDS = 300
SLOW_IMPORTS = (  # of the tests and of what they test; forks have them already
    "torch",
    "transformers.models.llama.modeling_llama",
    "peft",
    "fastapi",
    "sqlalchemy.ext.asyncio",
    "boto3",
    "openai",
)
OPTIONS = [
    "-n",
    "0",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:schemathesis",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
]
Shown = Literal["noticed", "whole"]
PASSED, FAILED, CRASHED = 0, 1, 70  # pytest's exit codes; 2 and above are bugs of ours


@dataclass(frozen=True)
class Break:
    """One deliberate mistake, of a kind that other servers make in silence."""

    name: str
    file: str
    old: str
    new: str
    test: str

    def key(self, root: Path) -> str:
        """Changes with the break, with the file that it breaks, and with the file of its test."""
        files = (self.file, self.test.partition("::")[0])
        parts = [*astuple(self), *((root / file).read_text(encoding="utf-8") for file in files)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class Memory:
    """What earlier runs have shown of each break: that it is noticed, that its test passes without it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = set(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else set[str]()

    def knows(self, what: Shown, one: Break) -> bool:
        return f"{what} {one.key(ROOT)}" in self._lines

    def add(self, what: Shown, one: Break) -> None:
        self._lines.add(line := f"{what} {one.key(ROOT)}")
        self._path.parent.mkdir(exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def main() -> int:
    """Prints one line per break; returns how many went unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="forget what earlier runs have shown")
    if parser.parse_args().all:
        REMEMBERED.unlink(missing_ok=True)
    breaks = [Break(**entry) for entry in tomllib.loads((Path(__file__).parent / "breaks.toml").read_text())["break"]]
    memory = Memory(REMEMBERED)
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="luthier-mutate-") as folder:
        unnoticed = unnoticed_of(breaks, memory, copy_of_tree(Path(folder) / "tree"))
    print(f"\n{len(breaks) - unnoticed} of {len(breaks)} breaks are noticed")
    return unnoticed


def unnoticed_of(breaks: Sequence[Break], memory: Memory, tree: Path) -> int:
    """How many of them go unnoticed, or cannot be tried."""
    for one in breaks:
        if memory.knows("noticed", one):
            continue
        outcome = outcome_of(one, tree)
        print(f"{outcome:10}  {one.name}: {one.test}", flush=True)
        if outcome == "noticed":
            memory.add("noticed", one)
    noticed = [one for one in breaks if memory.knows("noticed", one)]
    unknown = [one for one in noticed if not memory.knows("whole", one)]
    failing = failing_of({one.test for one in unknown}, tree) if unknown else set()
    for one in unknown:
        if one.test in failing:
            print(f"FAILS ANYWAY  {one.name}: {one.test}", flush=True)
        else:
            memory.add("whole", one)
    return len(breaks) - sum(memory.knows("whole", one) for one in noticed)


def copy_of_tree(target: Path) -> Path:
    """The tracked files, as they stand, and what was fetched for the tests."""
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, names):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    (target / ".cache").symlink_to(ROOT / ".cache")
    return target


def failing_of(tests: Iterable[str], tree: Path) -> set[str]:
    """Those that fail on the product as it is; a line for a parameter of a test has `[` after its name."""
    every = sorted(tests)
    code, printed = run(tree, "-rfE", "--tb=no", *every)
    ended = re.findall(r"^(?:FAILED|ERROR) ([^ [\n]+)", printed, re.MULTILINE)
    if code not in (PASSED, FAILED) or bool(ended) != (code == FAILED):
        raise SystemExit(f"the tests of the breaks do not run ({code}):\n{printed[-4000:]}")
    return set(ended)


def outcome_of(one: Break, tree: Path) -> str:
    """`noticed` where the test fails on the broken product."""
    path = tree / one.file
    whole = path.read_text(encoding="utf-8")
    if whole.count(one.old) != 1:
        return f"DOES NOT FIT: {one.file} does not hold its text exactly once"
    path.write_text(whole.replace(one.old, one.new), encoding="utf-8")
    code, printed = run(tree, "-x", one.test)
    path.write_text(whole, encoding="utf-8")
    if code not in (PASSED, FAILED):
        print(printed[-4000:], flush=True)
    return "noticed" if code == FAILED else f"UNNOTICED ({code})"


def run(tree: Path, *arguments: str) -> tuple[int | None, str]:
    """pytest's exit code, None when it ran past its time, and what it printed. A missing server is a failure.

    In a fork of this process, which has imported what takes long and nothing of ours.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as printed:
        if (pid := os.fork()) == 0:
            _become_pytest(tree, arguments, printed.fileno())
        code = _ended(pid, TEST_SECONDS * len(arguments))
        printed.seek(0)
        return code, printed.read()


def _become_pytest(tree: Path, arguments: Sequence[str], output: int) -> NoReturn:
    """In the fork: runs it on the code of the tree, and ends, whatever happens."""
    code = CRASHED
    try:
        os.setsid()
        for number in (1, 2):
            os.dup2(output, number)
        os.chdir(tree)
        os.environ |= {"CI": "true", "PYTHONPATH": str(tree)}
        sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
        for name in [name for name in sys.modules if name.partition(".")[0] in ("service", "tests", "workers")]:
            del sys.modules[name]
        code = int(pytest.main([*OPTIONS, *arguments]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ended(pid: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


if __name__ == "__main__":
    sys.exit(main())
