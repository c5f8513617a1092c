"""How often a check's interval held: jobs of many sizes through the whole service, each predicted from those before.

    python -m benchmarks.check_duration [--jobs 20] > benchmarks/check_duration.txt

Every job is checked first, and names its check; once it has ended, what the check said about its duration stands beside
the seconds that passed between its slot and its callable model. The first jobs, of which a check says that too few were
measured, come on top. The base is the bundled one, so the whole takes minutes.
"""

import argparse
import json
import os
import random
import time
from dataclasses import dataclass

from openai import BaseModel, OpenAI

from examples.demo.service_process import running_service
from service.domain.duration import JOBS_NEEDED, LEVEL
from service.domain.event import started

SEED = 3
WORDS = ["red", "blue", "green", "yellow", "black", "white", "brown", "pink", "grey", "orange"]
MAX_SECONDS = 600.0  # of one check or job


class Said(BaseModel):
    """`result.duration` of a check."""

    seconds: int
    low: int
    high: int
    based_on: int


class Found(BaseModel):
    """`result` of a check."""

    duration: Said | None


class Checked(BaseModel):
    """A check."""

    id: str
    status: str
    result: Found | None


class Job(BaseModel):
    """A job."""

    id: str
    status: str
    finished_at: int | None


@dataclass(frozen=True)
class Size:
    """Of one job; `words` of each row's question."""

    rows: int
    words: int
    epochs: int
    batch: int


def main() -> None:
    """Prints a line per job and how often the truth lay inside."""
    parser = argparse.ArgumentParser(description="How often the interval of a check held.")
    parser.add_argument("--jobs", type=int, default=20, help="that are predicted (default: %(default)s)")
    predicted = parser.parse_args().jobs
    numbers, inside = random.Random(SEED), 0
    print(f"{len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f} before; intervals of {LEVEL:.0%}")
    print("rows words epochs batch   said  low  high  from   took", flush=True)
    with running_service() as service, OpenAI(base_url=service.base_url, api_key=service.api_key) as client:
        for _ in range(JOBS_NEEDED + predicted):
            size = Size(
                rows=round(12 * 12 ** numbers.random()),  # 12 to 144
                words=numbers.choice([3, 10, 40]),
                epochs=numbers.choice([1, 2, 4]),
                batch=numbers.choice([1, 4, 16]),
            )
            said, took = _one(client, size, numbers)
            line = f"{size.rows:4}{size.words:6}{size.epochs:7}{size.batch:6}"
            if said is None:
                print(f"{line}   too few were measured {took:6}", flush=True)
                continue
            held = said.low <= took <= said.high
            inside += held
            verdict = "" if held else "  outside"
            print(f"{line}{said.seconds:7}{said.low:5}{said.high:6}{said.based_on:6}{took:7}{verdict}", flush=True)
    print(f"inside: {inside} of {predicted}, {inside / predicted:.0%}; load {os.getloadavg()[0]:.1f} after")


def _one(client: OpenAI, size: Size, numbers: random.Random) -> tuple[Said | None, int]:
    """What was said of a job of that size, and the seconds that it took."""
    file = client.files.create(file=("training.jsonl", _rows(size, numbers)), purpose="fine-tune").id
    settings = {"n_epochs": size.epochs, "batch_size": size.batch}
    body = {
        "model": "luthier-tiny",
        "training_file": file,
        "method": {"type": "supervised", "supervised": {"hyperparameters": settings}},
    }
    check = client.post("/fine_tuning/checks", body=body, cast_to=Checked)
    until = time.monotonic() + MAX_SECONDS
    while check.status in ("queued", "running"):
        _sleep(until)
        check = client.get(f"/fine_tuning/checks/{check.id}", cast_to=Checked)
    assert check.result is not None, check
    job = client.post("/fine_tuning/jobs", body={**body, "check": check.id}, cast_to=Job)
    until = time.monotonic() + MAX_SECONDS
    while job.finished_at is None:
        _sleep(until)
        job = client.get(f"/fine_tuning/jobs/{job.id}", cast_to=Job)
    assert job.status == "succeeded", job
    begun = [
        event.created_at
        for event in client.fine_tuning.jobs.list_events(job.id, limit=100)
        if event.message == started().message
    ]
    return check.result.duration, job.finished_at - min(begun)


def _rows(size: Size, numbers: random.Random) -> bytes:
    lines = []
    for number in range(size.rows):
        question = " ".join(numbers.choice(WORDS) for _ in range(size.words))
        messages = [
            {"role": "user", "content": f"{number} {question}?"},
            {"role": "assistant", "content": question.split()[0].upper()},
        ]
        lines.append(json.dumps({"messages": messages}))
    return "\n".join(lines).encode()


def _sleep(until: float) -> None:
    if time.monotonic() > until:
        raise TimeoutError(f"a check or a job has not ended within {MAX_SECONDS:g} s")
    time.sleep(0.2)


if __name__ == "__main__":
    main()
