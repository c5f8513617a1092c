"""Jobs beside each other: small ones of one project beside a large one of another, and equal ones of four projects.

    python -m benchmarks.fair_share [--small 8] [--seconds 45]

writes benchmarks/fair_share.txt and .svg. `luthierd up` on the bundled base. A small job is 50 of the demo's rows for
one epoch in batches of 8; it is timed from its POST to its end, alone and while a large job of another project trains.
Then four projects have one long job each: how many tokens each trains in the same seconds, as Jain's index (Jain, Chiu
and Hawe, 1984)  (sum x)^2 / (n sum x^2),  and what all of them train for each CPU second of the trainer, beside what
one of them trains alone. A job by itself has the other core for what surrounds its training.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import cycle, islice
from pathlib import Path

import psutil
from openai.types.fine_tuning import FineTuningJob

from benchmarks.bars import Spread, draw
from benchmarks.comparison import machine
from benchmarks.train_many import BATCH, ROWS, service_on
from benchmarks.train_one import TINY, demo_texts
from tests.given.journey import upload
from tests.given.running_service import RunningService, wait_for, wait_for_status

OUTPUT = Path(__file__).parent
TRAINER = "workers.trainer.process.loop"
PROJECTS = 4
LONG_ROWS, LONG_EPOCHS = 1_000, 50  # until it is cancelled
LIMIT_SECONDS = 600.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", type=int, default=8, help="small jobs, alone and beside (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=45.0, help="of each window (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, service_on("tiny", TINY, Path(scratch)) as service:
        lines = measure(service, options.small, options.seconds, options.output)
    (options.output / "fair_share.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(service: RunningService, small: int, seconds: float, output: Path, count: int = PROJECTS) -> list[str]:
    """The table of so many projects, two at least, printed; writes the picture."""
    projects = [Project(service, f"project-{number}") for number in range(count)]
    projects[0].small()  # what is done once
    alone = Spread([projects[0].small() for _ in range(small)])
    with projects[1].long():
        beside = Spread([projects[0].small() for _ in range(small)])
    with projects[0].long() as one:
        single = window(service, [one], seconds)
    with ExitStack() as together:
        shared = window(service, [together.enter_context(project.long()) for project in projects], seconds)
    goodput, goodput_shared = (sum(tokens) / cpu for tokens, cpu in (single, shared))
    tokens, loss = shared[0], 1 - goodput_shared / goodput
    lines = [
        machine(),
        "",
        f"a small job, {small} times, seconds from its POST to its end",
        f"{'alone':32}{alone!s:>28}",
        f"{'beside a large one':32}{beside!s:>28}   slowdown {beside.median / alone.median:.2f} (goal 2.0)",
        "",
        f"{count} projects, tokens in {seconds:g} seconds or more: {', '.join(map(str, tokens))}",
        f"{'Jain index':32}{jain(tokens):>28.4f}   (goal 0.98)",
        f"{'tokens per CPU second, one job':32}{goodput:>28.1f}",
        f"{f'the same, {count} jobs':32}{goodput_shared:>28.1f}   loss {loss:.1%} (goal 3 %)",
    ]
    print("\n".join(lines), flush=True)
    groups = {"a small job": {"alone": alone, "beside a large one": beside}}
    draw(output / "fair_share.svg", "A small job of another project", "seconds", groups)
    return lines


def jain(shares: Sequence[float]) -> float:
    """1 where all are equal, 1 / n where one has everything."""
    return float(sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)))


def content(count: int) -> bytes:
    """So many rows: the demo's, again and again."""
    lines = [json.dumps({"prompt": prompt, "completion": completion}) for prompt, completion in demo_texts()]
    return "\n".join(islice(cycle(lines), count)).encode()


class Project:
    """One project with a key and a file of its own."""

    def __init__(self, service: RunningService, name: str) -> None:
        self.client = service.client(service.run("keys", "create", "--project", name).strip())
        self._short, self._long = (upload(self.client, content(count)) for count in (ROWS, LONG_ROWS))

    def post(self, *, long: bool) -> FineTuningJob:
        file, epochs = (self._long, LONG_EPOCHS) if long else (self._short, 1)
        return self.client.fine_tuning.jobs.create(
            model="measured",
            training_file=file,
            seed=1,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs, "batch_size": BATCH}}},
            extra_body={"tuning": {"type": "lora", "lora": {"r": 16, "alpha": 32}}},
        )

    def small(self) -> float:
        """Seconds of a small job."""
        began = time.perf_counter()
        wait_for_status(self.client, self.post(long=False).id, "succeeded", seconds=LIMIT_SECONDS)
        return time.perf_counter() - began

    def long(self) -> "LongJob":
        return LongJob(self)


class LongJob:
    """Trains while the block runs, then is cancelled."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def __enter__(self) -> "LongJob":
        self._id = self._project.post(long=True).id
        wait_for(lambda: self.trained() > 0, LIMIT_SECONDS, "the long job's first step")
        return self

    def __exit__(self, *_: object) -> None:
        self._project.client.fine_tuning.jobs.cancel(self._id)
        wait_for_status(self._project.client, self._id, "cancelled", seconds=LIMIT_SECONDS)

    def trained(self) -> int:
        """Tokens until now, by its newest event with metrics."""
        for event in self._project.client.fine_tuning.jobs.list_events(self._id, limit=20).data:
            if event.type == "metrics":
                return int(event.data["trained_tokens"])  # type: ignore[index]
        return 0


def window(service: RunningService, jobs: Sequence[LongJob], seconds: float) -> tuple[list[int], float]:
    """What each trained meanwhile, and the trainers' CPU seconds; longer, until each has had a turn."""
    trainers = [psutil.Process(pid) for pid in service.processes(TRAINER)]
    before, cpu = [job.trained() for job in jobs], cpu_seconds(trainers)

    def tokens() -> list[int]:
        return [job.trained() - early for job, early in zip(jobs, before, strict=True)]

    time.sleep(seconds)
    wait_for(lambda: all(tokens()), LIMIT_SECONDS, "a turn of every job")
    return tokens(), cpu_seconds(trainers) - cpu


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Of one that has ended none: it was idle."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


if __name__ == "__main__":
    main()
