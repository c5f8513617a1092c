"""`make soak`: many jobs over two workers while one fault after the other strikes, then the table with its counts.

    python -m tests.faults.soak --rounds 20 --jobs 200

Every strike of `tests.faults.strikes`, `rounds` times each in random order, while jobs are kept in flight; every job
must end `succeeded` in the bits of its undisturbed twin. Beside it, on sets of their own, the other tests of this
folder and a real vLLM that dies, `rounds` times each, and generated requests to every route of the document.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from openai import OpenAIError

from tests.faults.invariants import FINAL, check_callable, check_one_artifact, check_succeeded, wait_until_final
from tests.faults.rounds import KINDS
from tests.faults.strikes import STRIKES, Strike
from tests.faults.twins import Twins
from tests.given.running_service import ROOT
from tests.given.tiny_models import make_tiny_base
from tests.production import Production, production

IN_FLIGHT = 5
VLLM_KILLED = "test_vllms_core_and_then_its_machine_lost_while_it_streams_and_every_model_comes_back"
CASES = 200  # generated requests of an operation, where `make test` sends fewer
PAUSE_SECONDS = (0.3, 2.5)  # between two strikes


class Soak:
    """The jobs that were made, the strikes that hit, and what was found wrong."""

    def __init__(self, production: Production, twins: Twins, seed: int) -> None:
        self.twins = twins
        self.kinds: dict[str, int] = {}
        self.hits: Counter[str] = Counter()
        self.broken: list[str] = []  # what did not hold of jobs
        self.bugs: list[str] = []
        self._production = production
        self._numbers = random.Random(seed)
        self._open: list[str] = []

    def run(self, strikes: Sequence[Strike], jobs: int) -> None:
        """Every strike once, in random order, over at least `jobs` jobs; what does not hold is in `broken`."""
        for kind in KINDS:
            self.twins.undisturbed(kind)
        deck = list(strikes)
        self._numbers.shuffle(deck)
        for number, strike in enumerate(deck, 1):
            self._fill(jobs_left=jobs - len(self.kinds), strikes_left=len(deck) - number + 1)
            time.sleep(self._numbers.uniform(*PAUSE_SECONDS))
            strike.hit(self._production, self._numbers)
            self.hits[strike.name] += 1
            _note(f"{number}/{len(deck)} {strike.name}; {len(self.kinds)} jobs, {len(self._open)} open")
            self._production.wait_ready()
        while len(self.kinds) < jobs:
            self._fill(jobs_left=jobs - len(self.kinds), strikes_left=1)
            time.sleep(0.5)
        self._check_all()

    def look_for_bugs(self) -> None:
        """No fault of this table may end in a traceback: that is a bug, whatever became of the job."""
        for process in self._production.processes:
            _, traceback, after = process.log.read_text(errors="replace").partition("Traceback")
            if traceback:
                self.bugs.append(f"a bug in the log of {process.name}: {after[:2000]}")

    def _fill(self, jobs_left: int, strikes_left: int) -> None:
        """Keeps jobs in flight, and hurries when there are more jobs to come than strikes."""
        client = self._production.client()
        self._open = [id for id in self._open if client.fine_tuning.jobs.retrieve(id).status not in FINAL]
        wanted = max(IN_FLIGHT - len(self._open), 0)
        if jobs_left <= 0:
            wanted = 1 if not self._open else 0  # a strike must find something to break
        elif jobs_left > strikes_left:
            wanted = max(wanted, 1)
        for _ in range(wanted):
            kind = self._numbers.choice(KINDS)
            job_id = self.twins.create(kind)
            self.kinds[job_id] = kind
            self._open.append(job_id)

    def _check_all(self) -> None:
        client = self._production.client()
        for job_id, kind in self.kinds.items():
            try:
                model = wait_until_final(client, job_id).fine_tuned_model
                check_succeeded(self._production, self.twins, job_id, kind)
                check_one_artifact(self._production, job_id)
                check_callable(client, str(model))
            except (AssertionError, OpenAIError) as error:
                self.broken.append(f"{job_id}: {error}")
                _note(self._production.lines_about(job_id))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="of each fault")
    parser.add_argument("--jobs", type=int, default=200, help="at least so many")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--strikes-only", action="store_true", help="leave the other tests of the folder out")
    arguments = parser.parse_args()
    started = time.monotonic()
    print(f"seed {arguments.seed}", flush=True)  # noqa: T201
    with TemporaryDirectory(prefix="luthier-soak-") as folder, ThreadPoolExecutor(1) as apart:
        report = Path(folder) / "report.xml"
        beside = None if arguments.strikes_only else apart.submit(_others, arguments.rounds, report)
        base = make_tiny_base(Path(folder) / "base")
        with production(Path(folder), base) as made:
            soak = Soak(made, Twins(made), arguments.seed)
            soak.run(STRIKES * arguments.rounds, arguments.jobs)
            soak.look_for_bugs()
        others = beside.result() if beside else {}
    _report(soak, others, time.monotonic() - started)
    sys.exit(bool(soak.broken or soak.bugs) or any(bad for _, bad in others.values()))


def _others(rounds: int, report: Path) -> dict[str, tuple[int, int]]:
    """The tests that are no strikes: name -> rounds that held, rounds that did not; skipped is not held."""
    command = [sys.executable, "-m", "pytest", "tests/faults", f"--junitxml={report}"]
    command += ["--ignore=tests/faults/test_strikes.py", "tests/contract/test_openapi_schemathesis.py"]
    command += [f"tests/e2e/test_production.py::{VLLM_KILLED}"]
    environment = os.environ | {"LUTHIER_FAULT_ROUNDS": str(rounds), "LUTHIER_CASES": str(CASES)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        _note(ended.stdout + ended.stderr)
    counts: dict[str, tuple[int, int]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.attrib["name"].partition("[")[0].removeprefix("test_").replace("_", " ")
        good, bad = counts.get(name, (0, 0))
        held = all(case.find(outcome) is None for outcome in ("failure", "error", "skipped"))
        counts[name] = (good + 1, bad) if held else (good, bad + 1)
    return counts


def _note(text: str) -> None:
    """What helps whoever looks on, beside the table."""
    print(text, file=sys.stderr)  # noqa: T201


def _report(soak: Soak, others: dict[str, tuple[int, int]], seconds: float) -> None:
    print(f"\n{'fault':<75} rounds  broken")  # noqa: T201
    for strike in STRIKES:
        print(f"{strike.name:<75} {soak.hits[strike.name]:>6}       -")  # noqa: T201
    for name, (good, bad) in others.items():
        print(f"{name:<75} {good + bad:>6}  {bad:>6}")  # noqa: T201
    good = len(soak.kinds) - len(soak.broken)
    print(f"\n{len(soak.kinds)} jobs under the faults marked -: {good} succeeded once, bit-identical to their twins")  # noqa: T201
    for line in soak.broken + soak.bugs:
        print(f"BROKEN {line}")  # noqa: T201
    print(f"{seconds / 60:.0f} minutes")  # noqa: T201


if __name__ == "__main__":
    main()
