"""Many jobs on one base: the service against a process per job and against one warm process, in turns.

    python -m benchmarks.train_many [--minutes 60] [--jobs 8] [--bases tiny,12m,135m] [--rounds 5]

writes benchmarks/train_many.txt and .svg. Every job is 50 of the demo's rows for three epochs in batches of 8: 21 steps
of LoRA of rank 16 on every linear layer. Ours are posted at once to `luthierd up`, which runs before the clock starts
as it does at a user's, and are done when all have succeeded: validated, trained, compared, announced. The peers have
their rows as tokens already and compare nothing. Their processes run one after another, with as many threads as our
trainer takes for the base. CPU seconds are of all processes of a contender, wall seconds from the first post or start
to the last end.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from benchmarks.bars import Spread, draw
from benchmarks.comparison import in_turns, machine, run_process
from benchmarks.train_one import OUTPUT, Rows, demo_texts, make_base, tokenised
from service.processes.cpus import available_cpus
from service.recipes.base import Base, Serving
from tests.given.journey import upload
from tests.given.running_service import RunningService, descendants, running, wait_for_status
from workers.trainer.process.threads import usual_threads

ROWS, EPOCHS, BATCH, RATE = 50, 3, 8, 2e-3
PARAMETERS = {"tiny": 4_000_000, "12m": 12_000_000, "135m": 135_000_000}
LIMIT_SECONDS = 3600.0  # of one contender's run
PAUSE_SECONDS = 0.25  # between two looks at a job, which the API's CPU seconds are measured with


@dataclass(frozen=True)
class Run:
    """All jobs of one contender."""

    cpu_seconds: float
    wall_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=5, help="at most (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--bases", default="tiny,12m,135m")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--name", default="train_many", help="of the two files that are written (default: %(default)s)")
    options = parser.parse_args()
    bases = options.bases.split(",")
    lines = measure(options.minutes, options.rounds, options.jobs, bases, options.epochs, options.output, options.name)
    (options.output / f"{options.name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


Serve = Callable[[str, Path, Path], AbstractContextManager[RunningService]]


def measure(
    minutes: float,
    rounds: int,
    jobs: int,
    bases: Sequence[str],
    epochs: int,
    output: Path,
    name: str = "train_many",
    serve: Serve | None = None,
) -> list[str]:
    """The table, which is printed as it grows; writes the picture. `serve` starts a service on a base: `service_on`."""
    lines = [f"{machine()}; {jobs} jobs of {ROWS} rows, {epochs} epochs, batches of {BATCH}", ""]
    print(lines[0], flush=True)
    texts = demo_texts()[:ROWS]
    rows = tokenised(texts)
    groups: dict[str, dict[str, Spread]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for base in bases:
            folder = make_base(base, Path(scratch) / base)
            deadline = time.monotonic() + 60 * minutes / len(bases)
            with (serve or service_on)(base, folder, Path(scratch)) as service:
                contenders = {
                    "luthier": lambda service=service: ours(service, texts, jobs, epochs),  # type: ignore[misc]
                    "a process per job": lambda folder=folder, base=base: peers(  # type: ignore[misc]
                        "process", folder, threads(base), rows, jobs, epochs, Path(scratch)
                    ),
                    "one warm process": lambda folder=folder, base=base: peers(  # type: ignore[misc]
                        "serial", folder, threads(base), rows, jobs, epochs, Path(scratch)
                    ),
                }
                found = in_turns(contenders, deadline, rounds)
            part = table(base, found)
            print("\n".join(part), flush=True)
            lines += part
            for title in ("cpu_seconds", "wall_seconds"):
                key = f"{base}, {title.removesuffix('_seconds')}"
                groups[key] = {one: Spread([vars(run)[title] for run in runs]) for one, runs in found.items()}
    draw(output / f"{name}.svg", f"{jobs} jobs of LoRA on one base", "seconds", groups)
    return lines


@contextmanager
def service_on(
    name: str,
    folder: Path,
    scratch: Path,
    dtype: Literal["float32", "bfloat16"] = "float32",
    settings: Mapping[str, object] | None = None,
) -> Iterator[RunningService]:
    base = Base(
        id="measured", source=str(folder), dtype=dtype, context_tokens=1024, learning_rate={"lora": RATE},
        serving=Serving(tunings=frozenset({"lora"})),
    )  # fmt: skip
    as_installed = {"trainer_threads": 0, "engine_threads": 2, **(settings or {})}
    with running(scratch / f"service-{name}", base, **as_installed) as service:
        yield service


def ours(service: RunningService, texts: Sequence[tuple[str, str]], jobs: int, epochs: int) -> Run:
    """From the first post until all have succeeded."""
    client = service.client()
    content = "\n".join(json.dumps({"prompt": prompt, "completion": completion}) for prompt, completion in texts)
    file = upload(client, content.encode())
    before, begin = service_cpu(service), time.monotonic()
    created = [
        client.fine_tuning.jobs.create(
            model="measured",
            training_file=file,
            seed=seed,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs, "batch_size": BATCH}}},
            extra_body={"tuning": {"type": "lora", "lora": {"r": 16, "alpha": 32}}},
        )
        for seed in range(jobs)
    ]
    for job in created:
        wait_for_status(client, job.id, "succeeded", seconds=LIMIT_SECONDS, pause=PAUSE_SECONDS)
    return Run(service_cpu(service) - before, time.monotonic() - begin)


def service_cpu(service: RunningService) -> float:
    """CPU seconds of all its processes, and of those of them that have ended."""
    assert service.process is not None
    total = 0.0
    for pid in [service.process.pid, *descendants(service.process.pid)]:
        try:
            used = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total


def threads(base: str) -> int:
    """Those of a trainer of this base."""
    return usual_threads(PARAMETERS[base], available_cpus())


def peers(
    kind: str,
    folder: Path,
    threads: int,
    rows: Rows,
    jobs: int,
    epochs: int,
    scratch: Path,
    dtype: str = "float32",
    device: str = "cpu",
) -> Run:
    """One process for each job, or one for all of them."""
    given = {
        "kind": kind, "base": str(folder), "threads": threads, "rows": rows, "jobs": jobs, "epochs": epochs,
        "batch_size": BATCH, "learning_rate": RATE, "dtype": dtype, "device": device,
    }  # fmt: skip
    job = scratch / "job.json"
    job.write_text(json.dumps(given), encoding="utf-8")
    before, begin = children_cpu(), time.monotonic()
    for _ in range(jobs if kind == "process" else 1):
        offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
        run_process([sys.executable, "-m", "benchmarks.train_many_peft", str(job)], offline, LIMIT_SECONDS)
    return Run(children_cpu() - before, time.monotonic() - begin)


def children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(name: str, found: dict[str, list[Run]]) -> list[str]:
    """A line for each contender."""
    ours_cpu = Spread([run.cpu_seconds for run in found["luthier"]]).median
    ours_wall = Spread([run.wall_seconds for run in found["luthier"]]).median
    lines = [
        f"{name}, {len(found['luthier'])} rounds",
        f"{'':20}{'CPU s':>22}{'wall s':>22}{'CPU/ours':>10}{'wall/ours':>11}",
    ]
    for one, runs in found.items():
        cpu, wall = Spread([run.cpu_seconds for run in runs]), Spread([run.wall_seconds for run in runs])
        lines.append(f"{one:20}{cpu!s:>22}{wall!s:>22}{cpu.median / ours_cpu:>10.2f}{wall.median / ours_wall:>11.2f}")
    return [*lines, ""]


if __name__ == "__main__":
    main()
