"""Every tuning on one task, with its default settings: what it trains, what it costs, what it learns, who serves it.

    python -m benchmarks.tunings [--seeds 3] [--only lora,full] > benchmarks/tunings.txt

The task is the demo's: 50 held-out questions of which no row was trained, sorted by an exact word, on the bundled base
of 4 million parameters. Every job runs through the service, one at a time, as a user's does; a tuning is asked for by
name, with six epochs of batches of 8 and the default learning rate. CPU seconds are those of the trainer's process
between the job's start and its end. Intervals are the mean over the seeds and the half-width of Student's 95 %
interval.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from openai import OpenAI
from safetensors import safe_open

from examples.demo.questions import ask_all, count_right, read_questions
from service.recipes.tuning import TUNINGS
from tests.given.journey import upload
from tests.given.running_service import RunningService, running, wait_for_status

DEMO = Path(__file__).parents[1] / "examples" / "demo"
VARIANTS: dict[str, dict[str, Any]] = {
    "lora, use_dora": {"type": "lora", "lora": {"use_dora": True}},
    "lora, use_rslora, r 64": {"type": "lora", "lora": {"use_rslora": True, "r": 64}},
    "lora, init pissa": {"type": "lora", "lora": {"init": "pissa"}},
    "partial, last:2": {"type": "partial", "partial": {"parameters": "last:2"}},
}
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # of 95 %, by the number of seeds


@dataclass(frozen=True)
class Trained:
    """One job's result. `score` is a share of the held-out questions."""

    parameters: int
    file_bytes: int
    cpu_seconds: float
    score: float


def main(seeds: int, only: Sequence[str]) -> None:
    kinds = {name: {"type": name} for name in TUNINGS.names} | VARIANTS
    chosen = {name: spec for name, spec in kinds.items() if not only or name in only}
    print(f"luthier-tiny, the demo's rows, 6 epochs, batches of 8, one thread, {seeds} seeds")
    print(f"{'tuning':26}{'parameters':>11}{'KiB':>7}{'CPU s':>8}{'held out right':>18}  served by")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", slots=1) as service:
        client = service.client()
        questions = read_questions(DEMO / "heldout.jsonl")
        base = count_right(questions, ask_all(client, "luthier-tiny", questions, 16)) / len(questions)
        print(f"{'(the base)':26}{'':26}{base:>12.0%}")
        file = upload(client, (DEMO / "training.jsonl").read_bytes())
        for name, spec in chosen.items():
            found = [one for seed in range(1, seeds + 1) if (one := train(service, client, file, spec, seed))]
            print(row(name, str(spec["type"]), found, seeds))
            sys.stdout.flush()


def train(service: RunningService, client: OpenAI, file: str, spec: dict[str, Any], seed: int) -> Trained | None:
    """None where the job fails, as one that learns nothing does."""
    (pid,) = service.processes("workers.trainer")
    before = cpu_seconds(pid)
    hyperparameters = {"n_epochs": 6, "batch_size": 8}
    job = client.fine_tuning.jobs.create(
        model="luthier-tiny",
        training_file=file,
        seed=seed,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},  # type: ignore[typeddict-item]
        extra_body={"tuning": spec},
    )
    try:
        job = wait_for_status(client, job.id, "succeeded", seconds=900)
    except AssertionError as error:
        print(f"  {spec['type']}, seed {seed}: {error}", file=sys.stderr)
        return None
    used = cpu_seconds(pid) - before
    assert job.fine_tuned_model is not None
    questions = read_questions(DEMO / "heldout.jsonl")
    score = count_right(questions, ask_all(client, job.fine_tuned_model, questions, 16)) / len(questions)
    folder = service.folder / "objects" / "adapters" / quote(job.fine_tuned_model, safe="")
    weights = next(path for path in folder.glob("*.safetensors") if path.name != "head.safetensors")
    with safe_open(weights, "pt") as tensors:
        parameters = sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return Trained(parameters, weights.stat().st_size, used, score)


def row(name: str, tuning: str, found: Sequence[Trained], seeds: int) -> str:
    recipe = TUNINGS.find(tuning)
    assert recipe is not None
    engines = ", ".join(sorted(recipe.engines))
    if not found:
        return f"{name:26}{'':26}{'no job succeeded':>18}  {engines}"
    scores = [one.score for one in found]
    half = STUDENT[len(scores)] * statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan
    failed = f" ({seeds - len(found)} failed)" if len(found) < seeds else ""
    return (
        f"{name:26}{found[0].parameters:>11,}{found[0].file_bytes / 1024:>7.0f}"
        f"{statistics.median(one.cpu_seconds for one in found):>8.1f}"
        f"{statistics.mean(scores):>11.0%} ± {half:>4.0%}  {engines}{failed}"
    )


def cpu_seconds(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help=json.dumps(sorted(TUNINGS.names)))
    arguments = parser.parse_args()
    main(arguments.seeds, [name for name in arguments.only.split(",") if name])
