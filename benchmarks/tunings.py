"""Every tuning on one task, with its default settings: what it trains, what it costs, what it learns, who serves it.

    python -m benchmarks.tunings [--seeds 5] [--only lora "lora, use_dora"] > benchmarks/tunings.txt

Prints a row as soon as its jobs have ended: what is missing after an interruption is run with `--only`, and added.

The task is the demo's: 50 held-out questions of which no row was trained, sorted by an exact word, on the bundled base
of 4 million parameters. Every job runs through the service as a user's does, the seeds of a tuning side by side in one
trainer; a tuning is asked for by name, with six epochs of batches of 8 and the base's learning rate for it, or its own
rule where the base names none. The base is served with every tuning here, those included that it is not served with by
default. CPU seconds are those of the trainer's process between the start and the end of a tuning's jobs, checkpoints
and their scores for the announcement included, divided by their number. Intervals are the mean over
the seeds and the half-width of Student's 95 % interval.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from openai import OpenAI
from safetensors import safe_open

from examples.demo.jobs import ENDED
from examples.demo.questions import ask_all, count_right, read_questions
from service.domain.errors import InvalidRequest
from service.recipes.base import Base, EngineKind, Serving
from service.recipes.catalogue import read_catalogue
from service.recipes.catalogue import served_by as tunings_of
from service.recipes.tuning import TUNINGS, TuningSettings, check_servable, tuning_of
from service.settings.settings import Settings
from tests.given.journey import upload
from tests.given.running_service import RunningService, running

DEMO = Path(__file__).parents[1] / "examples" / "demo"
VARIANTS: dict[str, dict[str, Any]] = {
    "lora, use_dora": {"type": "lora", "lora": {"use_dora": True}},
    "lora, use_rslora, r 64": {"type": "lora", "lora": {"use_rslora": True, "r": 64}},
    "lora, init pissa": {"type": "lora", "lora": {"init": "pissa"}},
    "partial, last:2": {"type": "partial", "partial": {"parameters": "last:2"}},
    "bottleneck, houlsby, 64": {"type": "bottleneck", "bottleneck": {"placement": "houlsby", "size": 64}},
}
OTHER_RATES = {
    "prompt": 5e-2,
    "loreft": 4e-2,
}  # of those that the base is not served with, whose own rules are for larger bases
POLL_SECONDS = 2.0
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # of 95 %, by the number of seeds


@dataclass(frozen=True)
class Trained:
    """One job's result. `score` is a share of the held-out questions."""

    parameters: int
    file_bytes: int
    score: float


def main(seeds: int, only: Sequence[str]) -> None:
    kinds = {name: {"type": name} for name in TUNINGS.names} | VARIANTS
    chosen = {name: kinds[name] for name in only or kinds}
    print(f"luthier-tiny, the demo's rows, 6 epochs, batches of 8, one thread, {seeds} seeds")
    print(f"{'tuning':26}{'parameters':>11}{'KiB':>7}{'CPU s':>8}{'held out right':>18}  served by")
    settings = {"slots": seeds, "lease_seconds": 120, "trainers": 1}
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", every_tuning(), **settings) as service:
        client = service.client()
        questions = read_questions(DEMO / "heldout.jsonl")
        base = count_right(questions, ask_all(client, "luthier-tiny", questions, 16)) / len(questions)
        print(f"{'(the base)':26}{'':26}{base:>12.0%}")
        file = upload(client, (DEMO / "training.jsonl").read_bytes())
        for name, spec in chosen.items():
            (trainer,) = service.processes("workers.trainer")
            before = cpu_seconds(trainer)
            jobs = [create(client, file, spec, seed) for seed in range(1, seeds + 1)]
            models = [model for job in jobs if (model := tuned(client, job))]
            used = (cpu_seconds(trainer) - before) / seeds
            found = [measured(service, client, model) for model in models]
            print(row(name, served_by(spec), used, found, seeds))
            sys.stdout.flush()


def every_tuning() -> Base:
    """The bundled base, served with all."""
    base = read_catalogue(Settings().catalogue).bases["luthier-tiny"]
    serving = base.serving.model_copy(update={"tunings": frozenset(tunings_of("embedded"))})
    return base.model_copy(update={"serving": serving, "learning_rate": {**OTHER_RATES, **base.learning_rate}})


def create(client: OpenAI, file: str, spec: dict[str, Any], seed: int) -> str:
    """The job's id."""
    hyperparameters: dict[str, Any] = {"n_epochs": 6, "batch_size": 8}
    return client.fine_tuning.jobs.create(
        model="luthier-tiny",
        training_file=file,
        seed=seed,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},  # type: ignore[typeddict-item]
        extra_body={"tuning": spec},
    ).id


def tuned(client: OpenAI, job_id: str) -> str | None:
    """The model, once the job has ended. None where it has failed, as one that learns nothing does."""
    while (job := client.fine_tuning.jobs.retrieve(job_id)).status not in ENDED:
        time.sleep(POLL_SECONDS)
    if job.fine_tuned_model is None:
        print(f"  seed {job.seed}: {job.error.message if job.error else job.status}", file=sys.stderr)
    return job.fine_tuned_model


def measured(service: RunningService, client: OpenAI, model: str) -> Trained:
    """What the model is, and how many of the held-out questions it gets right."""
    questions = read_questions(DEMO / "heldout.jsonl")
    score = count_right(questions, ask_all(client, model, questions, 16)) / len(questions)
    folder = service.folder / "objects" / "adapters" / quote(model, safe="")
    weights = next(path for path in folder.glob("*.safetensors") if path.name != "head.safetensors")
    with safe_open(weights, "pt") as tensors:
        parameters = sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return Trained(parameters, weights.stat().st_size, score)


def served_by(spec: dict[str, Any]) -> str:
    """The engines that serve it, of bases that allow LoRA of rank 64."""
    tuning = tuning_of({**spec, spec["type"]: spec.get(spec["type"], {})})
    found = ["embedded"] if serves("embedded", tuning) else []
    if serves("vllm", tuning):
        found.append("vllm")
    elif tuning.lora_form != "none":
        found.append("vllm as a LoRA")
    return ", ".join(found)


def serves(engine: EngineKind, tuning: TuningSettings) -> bool:
    serving = Serving(engine=engine, tunings=frozenset(tunings_of(engine)), max_rank=64)
    try:
        check_servable(Base(id="any", source="any", context_tokens=1024, serving=serving), tuning)
    except InvalidRequest:
        return False
    return True


def row(name: str, engines: str, used: float, found: Sequence[Trained], seeds: int) -> str:
    if not found:
        return f"{name:26}{'':26}{'no job succeeded':>18}  {engines}"
    scores = [one.score for one in found]
    half = STUDENT[len(scores)] * statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan
    failed = f" ({seeds - len(found)} failed)" if len(found) < seeds else ""
    return (
        f"{name:26}{found[0].parameters:>11,}{found[0].file_bytes / 1024:>7.0f}"
        f"{used:>8.1f}"
        f"{statistics.mean(scores):>11.0%} ± {half:>4.0%}  {engines}{failed}"
    )


def cpu_seconds(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5, choices=sorted(STUDENT))
    parser.add_argument("--only", nargs="+", default=[], choices=[*TUNINGS.names, *VARIANTS], metavar="TUNING")
    arguments = parser.parse_args()
    main(arguments.seeds, arguments.only)
