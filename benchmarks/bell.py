"""From POST to claim: the bell on Redis beside the embedded one, one API process and two workers, a ring at a time.

    python -m benchmarks.bell [--rings 50] > benchmarks/bell.txt

Everything is real: HTTP, SQLite, Valkey, worker processes with their trainers. A ring's time runs from before the POST
until a worker's claim is in the database; the job is then cancelled. The two bells ring in turns, so that what
else the machine does meets both. The workers' own sweep is an hour off for the bell on Redis: what is not rung is not
heard.
"""

import argparse
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from openai import OpenAI

from tests.given.journey import rows
from tests.given.running_service import ROOT, answers, free_ports, wait_for, write_catalogue
from tests.given.tiny_models import make_tiny_base
from tests.servers.valkey import Valkey

WORKERS = 2
START_SECONDS = 120.0
CLAIM_SECONDS = 30.0


@dataclass(frozen=True)
class Installation:
    """One API and its workers."""

    client: OpenAI
    database: sqlite3.Connection
    file: str

    def ring(self) -> float:
        """Seconds from a POST to its claim."""
        started = time.perf_counter()
        job = self.client.fine_tuning.jobs.create(model="tiny", training_file=self.file)
        while not self._claimed(job.id):
            if time.perf_counter() - started > CLAIM_SECONDS:
                raise TimeoutError(f"nobody claimed the job within {CLAIM_SECONDS} s")
            time.sleep(0.001)
        seconds = time.perf_counter() - started
        self.client.fine_tuning.jobs.cancel(job.id)
        return seconds

    def _claimed(self, id: str) -> bool:
        row = self.database.execute("SELECT attempt FROM jobs WHERE id = ?", (id,)).fetchone()
        return row is not None and row[0] > 0


@contextmanager
def installation(folder: Path, **settings: str) -> Iterator[Installation]:
    """Started; ended with all that it started."""
    catalogue = write_catalogue(folder / "bases.toml", make_tiny_base(folder / "base"))
    (port,) = free_ports(1)
    values = {
        "data_dir": str(folder / "data"),
        "catalogue": str(catalogue),
        "port": str(port),
        "engine_urls": "",
        "trainer_threads": "1",
        "log_level": "warning",
        **settings,
    }
    environment = os.environ | {f"LUTHIER_{name.upper()}": value for name, value in values.items()}
    subprocess.run([sys.executable, "-m", "service", "migrate"], cwd=ROOT, env=environment, check=True, timeout=60)
    with ExitStack() as started:
        for arguments in [["service", "serve"], *[["workers", "train"]] * WORKERS]:
            started.enter_context(_process(arguments, environment))
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"), START_SECONDS, "the API")
        key = (folder / "data" / "api-key").read_text(encoding="utf-8").strip()
        client = started.enter_context(OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key))
        file = client.files.create(file=("a.jsonl", rows(24)), purpose="fine-tune").id
        database = sqlite3.connect(f"file:{folder / 'data' / 'luthier.db'}?mode=ro", uri=True)
        yield Installation(client, database, file)
        database.close()


@contextmanager
def _process(arguments: list[str], environment: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", *arguments, "--die-with-parent"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="From POST to claim, on both bells.")
    parser.add_argument("--rings", type=int, default=50)
    rings = parser.parse_args().rings
    with tempfile.TemporaryDirectory() as name, ExitStack() as started:
        valkey = Valkey(Path(name) / "valkey")
        valkey.start()
        started.callback(valkey.kill)
        redis = {"redis_url": valkey.url, "sweep_seconds": "3600"}
        folders = {"embedded": {}, "redis": redis}
        bells = {}
        for bell, settings in folders.items():
            (folder := Path(name) / bell).mkdir()
            bells[bell] = started.enter_context(installation(folder, **settings))
        for one in bells.values():
            for _ in range(5):
                one.ring()  # imports, connections, trainers
        time.sleep(10)
        seconds: dict[str, list[float]] = {bell: [] for bell in bells}
        for _ in range(rings):
            for bell, one in bells.items():
                time.sleep(random.uniform(0.1, 0.4))  # in no step with anybody's look
                seconds[bell].append(one.ring())
    print(f"From POST to claim, {WORKERS} workers, {rings} rings each, in turns; milliseconds")
    print(f"{'bell':10}{'median':>8}{'p90':>8}{'longest':>9}")
    for bell, found in seconds.items():
        nine = statistics.quantiles(found, n=10)[-1]
        print(f"{bell:10}{statistics.median(found) * 1000:8.0f}{nine * 1000:8.0f}{max(found) * 1000:9.0f}")


if __name__ == "__main__":
    main()
