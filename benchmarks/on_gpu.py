"""Training on a GPU, in one script of some minutes: one job, many jobs, and a job's way to its first token.

    python -m benchmarks.on_gpu [--bases 0.5b,8b] [--jobs 4] [--rounds 2] [--output FOLDER]

writes on_gpu.txt and .svg. Bases have random weights of real shapes in bfloat16 and the bundled tokenizer; the rows
are the demo's. One job's steps are those of the product's own slot, beside a plain loop of torch and PEFT in a process
of its own; many jobs are those of `benchmarks.train_many`; the way to the first token is that of `benchmarks.journey`.
Seconds are wall seconds, memory is what torch had of the device at most. `--device cpu --bases tiny` runs every line on
a machine without a GPU, and measures nothing that matters.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from benchmarks import journey, train_many
from benchmarks.bars import Spread, draw
from benchmarks.comparison import in_turns, machine, run_process
from benchmarks.train_one import OUTPUT, Rows, demo_texts, make_base, tokenised
from tests.given.journey import upload
from tests.given.running_service import RunningService

LIMIT_SECONDS = 600.0  # of one process
STEPS = 12
Serve = Callable[[str, Path, Path], AbstractContextManager[RunningService]]


@dataclass(frozen=True)
class Setting:
    """What all contenders compute with."""

    device: str
    dtype: str
    rows: Rows
    scratch: Path


@dataclass(frozen=True)
class Steps:
    """One job of one process, without its first step."""

    tokens_per_second: float
    peak_megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bases", default="0.5b,8b")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=10, help="after which no round begins (default: %(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no GPU here; --device cpu --bases tiny tries the script alone")
    lines = measure(
        options.bases.split(","), options.jobs, options.rounds, 60 * options.minutes, options.device, options.output
    )
    (options.output / "on_gpu.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(
    bases: Sequence[str],
    jobs: int,
    rounds: int,
    seconds: float,
    device: str,
    output: Path,
    serve: Serve | None = None,
    epochs: int = train_many.EPOCHS,
) -> list[str]:
    """The table, which is printed as it grows; writes the picture. `serve` starts a service on a base."""
    on = torch.cuda.get_device_name() if device == "cuda" else "no GPU: this measures nothing"
    lines = [f"{on}; {machine()}", ""]
    print(lines[0], flush=True)
    texts, deadline = demo_texts()[: train_many.ROWS], time.monotonic() + seconds
    dtype: Literal["float32", "bfloat16"] = "bfloat16" if device == "cuda" else "float32"
    groups: dict[str, dict[str, Spread]] = {}
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(device, dtype, tokenised(texts), Path(folder))
        for base in bases:
            weights = make_base(base, setting.scratch / base, dtype, device)
            one = in_turns(
                {name: partial(steps, name, weights, setting) for name in ("luthier", "a loop")}, deadline, rounds
            )
            groups[f"{base}, one job"] = {
                name: Spread([run.tokens_per_second for run in runs]) for name, runs in one.items()
            }
            lines += told(table(base, one))
            settings = {"device": device, "lease_seconds": 120}
            started = partial(train_many.service_on, dtype=dtype, settings=settings)
            with (serve or started)(base, weights, setting.scratch) as service:
                many = in_turns(contenders(service, weights, setting, texts, jobs, epochs), deadline, rounds)
                lines += told(train_many.table(f"{base}, {jobs} jobs", many))
                lines += told(first_token(service, weights, setting, texts, rounds))
            groups[f"{base}, {jobs} jobs"] = {
                name: Spread([train_many.ROWS * epochs * jobs / run.wall_seconds for run in runs])
                for name, runs in many.items()
            }
    draw(output / "on_gpu.svg", f"LoRA on {on}", "tokens, or rows of many jobs, per second", groups)
    return lines


def told(lines: list[str]) -> list[str]:
    print("\n".join(lines), flush=True)
    return lines


def steps(contender: str, base: Path, setting: Setting) -> Steps:
    """One job in a process of its own."""
    given = {
        "kind": "loop", "base": str(base), "dtype": setting.dtype, "device": setting.device, "rows": setting.rows,
        "steps": STEPS, "epochs": 2, "jobs": 1, "batch_size": train_many.BATCH, "learning_rate": 1e-3, "seed": 1,
        "threads": 1,
    }  # fmt: skip
    job, result = setting.scratch / "job.json", setting.scratch / "result.json"
    job.write_text(json.dumps(given), encoding="utf-8")
    module = "benchmarks.train_one_ours" if contender == "luthier" else "benchmarks.train_many_peft"
    deterministic = {"HF_HUB_OFFLINE": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    run_process([sys.executable, "-m", module, str(job), str(result)], deterministic, LIMIT_SECONDS)
    found = json.loads(result.read_text(encoding="utf-8"))
    later = found["steps"][1:]
    tokens = sum(step["tokens"] for step in later)
    return Steps(tokens / sum(step["wall"] for step in later), found["peak_bytes"] / 1e6)


def table(base: str, found: dict[str, list[Steps]]) -> list[str]:
    ours = Spread([run.tokens_per_second for run in found["luthier"]]).median
    lines = [
        f"{base}, one job, {len(found['luthier'])} rounds",
        f"{'':20}{'tokens/s':>26}{'ours/it':>9}{'peak MB':>10}",
    ]
    for name, runs in found.items():
        speed = Spread([run.tokens_per_second for run in runs])
        peak = Spread([run.peak_megabytes for run in runs]).median
        lines.append(f"{name:20}{speed!s:>26}{ours / speed.median:>9.2f}{peak:>10.0f}")
    return [*lines, ""]


def contenders(
    service: RunningService, base: Path, setting: Setting, texts: Sequence[tuple[str, str]], jobs: int, epochs: int
) -> dict[str, Callable[[], train_many.Run]]:
    def peer(kind: str) -> train_many.Run:
        return train_many.peers(
            kind, base, 1, setting.rows, jobs, epochs, setting.scratch, setting.dtype, setting.device
        )  # fmt: skip

    return {
        "luthier": lambda: train_many.ours(service, texts, jobs, epochs),
        "a process per job": lambda: peer("process"),
        "one warm process": lambda: peer("serial"),
    }


def first_token(
    service: RunningService, base: Path, setting: Setting, texts: Sequence[tuple[str, str]], rounds: int
) -> list[str]:
    """From a POST to the first step, and from the end of a job to a token of its model."""
    client = service.client()
    content = "\n".join(json.dumps({"prompt": prompt, "completion": completion}) for prompt, completion in texts)
    file, hand = upload(client, content.encode()), journey.ByHand(base, setting.dtype, setting.device)
    journey.ours(service, client, file, hand)
    runs = [journey.ours(service, client, file, hand) for _ in range(rounds)]
    lines = journey.table(journey.FIRST_STEP, {journey.LUTHIER: Spread([run.first_step for run in runs])})
    return lines + journey.table(
        journey.FIRST_TOKEN,
        {
            journey.LUTHIER: Spread([run.first_token for run in runs if run.first_token is not None]),
            journey.BY_HAND: Spread([run.by_hand for run in runs if run.by_hand is not None]),
        },
    )


if __name__ == "__main__":
    main()
