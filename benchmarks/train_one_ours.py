"""One job in the trainer's slot, measured step by step: `python -m benchmarks.train_one_ours JOB.json RESULT.json`.

Started by `benchmarks.train_one`. The slot is the product's own, which a user's job runs in.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch

from service.recipes.base import Base, Serving
from service.recipes.objectives.supervised import SupervisedSettings
from service.recipes.recipe import Recipe
from service.recipes.tunings.lora import LoraSettings
from workers.data.tokenized import DatasetBuilder
from workers.model.load import environment, load_base
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec

GEMM = 1024  # rows and columns of the product that says what the processor can do


def main(job: Path, result: Path) -> None:
    given = json.loads(job.read_text(encoding="utf-8"))
    torch.set_num_threads(given["threads"])
    torch.use_deterministic_algorithms(True)  # as the trainer's process does
    torch.utils.deterministic.fill_uninitialized_memory = False
    entry = Base(
        id="base", source=given["base"], dtype=given["dtype"], context_tokens=1024,
        serving=Serving(tunings=frozenset({"lora"})),
    )  # fmt: skip
    base = load_base(entry, torch.device(given.get("device", "cpu")))
    rows = DatasetBuilder()
    for ids, labels in given["rows"]:
        rows.add(ids, [int(label >= 0) for label in labels])
    recipe = Recipe(objective=SupervisedSettings(), tuning=LoraSettings(r=16, alpha=32), task="generate")
    spec = JobSpec(
        job_id="measured", recipe=recipe, n_epochs=given["epochs"], batch_size=given["batch_size"],
        learning_rate=given["learning_rate"], seed=given["seed"], snapshot_steps=10**6,
    )  # fmt: skip
    data = rows.build()
    slot = Slot(base, environment(base.device), spec, data, None)
    steps = []
    for step in range(given["steps"]):
        examples = slot._examples(step)
        trained = sum(int(data.row(example)[1][1:].sum()) for example in examples)
        cpu, wall = cpu_seconds(), time.perf_counter()
        metrics = slot.train_step().metrics
        steps.append(
            {
                "cpu": cpu_seconds() - cpu,
                "wall": time.perf_counter() - wall,
                "loss": metrics["train_loss"],
                "trained": trained,
                "tokens": data.cost_tokens(examples),
            }
        )
    found = {"steps": steps, "peak_bytes": peak_bytes(base.device)}
    if base.device.type == "cpu":
        found |= {"gemm_flops": gemm_flops(base.model.dtype), "shape": shape(base.model)}
    result.write_text(json.dumps(found), encoding="utf-8")


def peak_bytes(device: torch.device) -> int:
    """Of the device's memory, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def shape(model: torch.nn.Module) -> dict[str, int]:
    """Numbers of weights: of the blocks' matrices, of the output layer, of the adapter."""
    blocks = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and ".layers." in n)
    head = model.get_output_embeddings().weight.numel()  # type: ignore[operator,union-attr]
    return {"blocks": blocks, "head": int(head)}


def gemm_flops(dtype: torch.dtype) -> float:
    """Operations in a CPU second, of one large product: the best of some."""
    one, other = torch.randn(GEMM, GEMM).to(dtype), torch.randn(GEMM, GEMM).to(dtype)
    best = float("inf")
    for _ in range(6):
        begin = cpu_seconds()
        for _ in range(4):
            one @ other
        best = min(best, (cpu_seconds() - begin) / 4)
    return float(2 * GEMM**3 / best)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
