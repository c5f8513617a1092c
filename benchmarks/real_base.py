"""The real base through the whole product, in figures: `python -m benchmarks.real_base > benchmarks/real_base.txt`.

Runs the demo's job of orders on SmolLM2-135M with the embedded engine, then asks the tuned model. Prints trained tokens
per second and per CPU second, the largest memory of each process, the seconds to a first token and tokens per second of
one and of eight streams, with the CPU seconds of everything. On a machine that does other things beside, only those by
CPU second and the memory say something. Fetches the base at its first run (`make demo`).
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from openai import OpenAI

from examples.demo.jobs import follow, upload
from examples.demo.known_base import catalogue_with, fetch
from examples.demo.service_process import running_service

ORDERS = Path(__file__).resolve().parents[1] / "examples" / "demo" / "orders"
BASE = "smollm2-135m"
MAX_TOKENS = 40
PARTS = {"workers engine": "engine", "workers train": "worker", "trainer.process": "trainer", "service serve": "API"}


@dataclass(frozen=True)
class Answer:
    """One streamed answer."""

    first_seconds: float
    seconds: float
    tokens: int


@dataclass(frozen=True)
class Part:
    """One process of the service: its largest memory so far, and the CPU seconds of all its threads."""

    megabytes: float
    cpu_seconds: float


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=64, help="training rows (default: %(default)s)")
    options = parser.parse_args()
    catalogue = catalogue_with(BASE) or fetch(BASE)
    print(
        f"torch {torch.__version__}, {len(os.sched_getaffinity(0))} CPUs, {_processor()}, load {os.getloadavg()[0]:.1f}"
    )
    with running_service(catalogue, {}) as service:
        client = OpenAI(base_url=service.base_url, api_key=service.api_key)
        model = _train(client, options.rows)
        _ask(client, [model])  # loads it
        for count in (1, 8):
            before = _parts()["engine"].cpu_seconds
            answers = _ask(client, [model] * count)
            _print_answers(answers, _parts()["engine"].cpu_seconds - before)
        for name, part in sorted(_parts().items()):
            print(f"{name:8} {part.megabytes:7.0f} MB at most, {part.cpu_seconds:6.1f} CPU seconds")


def _train(client: OpenAI, num_rows: int) -> str:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "training.jsonl"
        lines = (ORDERS / "training.jsonl").read_text(encoding="utf-8").splitlines()[:num_rows]
        path.write_text("\n".join(lines), encoding="utf-8")
        file = upload(client, path)
    hyperparameters = {"n_epochs": 1, "batch_size": 8}
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=file,
        seed=1,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
    )
    seen: list[tuple[float, float]] = []  # at each step's event: the time, and the trainer's CPU seconds
    for event in follow(client, job.id):
        if event.type == "metrics":
            seen.append((time.monotonic(), _parts()["trainer"].cpu_seconds))
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.fine_tuned_model is not None and job.trained_tokens is not None, job.error
    steps = len(seen)
    tokens = job.trained_tokens / steps
    between = tokens * (steps - 1)
    seconds, cpu_seconds = (last - first for first, last in zip(seen[0], seen[-1], strict=True))
    print(
        f"training {job.trained_tokens} tokens in {steps} steps of {tokens:.0f}: "
        f"{between / seconds:.0f} tokens per second, {between / cpu_seconds:.0f} per CPU second"
    )
    return job.fine_tuned_model


def _ask(client: OpenAI, models: Sequence[str]) -> list[Answer]:
    """All at once."""
    with ThreadPoolExecutor(len(models)) as pool:
        return list(pool.map(lambda model: _answer(client, model), models))


def _answer(client: OpenAI, model: str) -> Answer:
    began = time.monotonic()
    first, tokens = 0.0, 0
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Hi, Laura here. Please send three strap buttons to Oslo."}],
        temperature=0,
        max_tokens=MAX_TOKENS,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            first = first or time.monotonic() - began
        tokens = chunk.usage.completion_tokens if chunk.usage is not None else tokens
    return Answer(first, time.monotonic() - began, tokens)


def _print_answers(answers: Sequence[Answer], cpu_seconds: float) -> None:
    first = statistics.median(answer.first_seconds for answer in answers)
    seconds = max(answer.seconds for answer in answers)
    tokens = sum(answer.tokens for answer in answers)
    print(
        f"{len(answers)} answers at once: first token after {first:.2f} s, {tokens / seconds:.0f} tokens per second in "
        f"all, {tokens / cpu_seconds:.0f} per CPU second"
    )


def _parts() -> dict[str, Part]:
    """Of every process below this one, so far."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        command = " ".join(process.cmdline())
        name = next((name for words, name in PARTS.items() if words in command), None)
        if name is not None:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            times = process.cpu_times()
            found[name] = Part(peak / 1024, times.user + times.system)
    return found


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.machine()


if __name__ == "__main__":
    main()
