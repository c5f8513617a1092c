"""Jobs seated in a slot of the trainer, in this process: on a tiny base, with rows of random tokens."""

from pathlib import Path
from typing import Any

import pytest

from tests.given.recipes import recipe
from tests.given.tiny_models import random_rows
from workers.model.load import LoadedBase, environment
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec

LORA = {"type": "lora", "lora": {"r": 4, "alpha": 8, "dropout": 0.1, "target_modules": "all-linear"}}
PROMPT = {"type": "prompt", "prompt": {"num_virtual_tokens": 5}}
TRAIN, VALID = random_rows(10, seed=1), random_rows(5, seed=2)
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
every_tuning = pytest.mark.parametrize("tuning", [LORA, PROMPT], ids=["lora", "prompt"])


def seat(base: LoadedBase, job_id: str = "ftjob-1", tuning: dict[str, Any] = LORA, **changes: Any) -> Slot:
    values: dict[str, Any] = {"recipe": recipe(tuning)}
    values |= {"n_epochs": 2, "batch_size": 3, "learning_rate": 1e-2, "seed": 7, "snapshot_steps": 100, **changes}
    spec = JobSpec(job_id=job_id, **values)
    return Slot(base, environment(base.device), spec, TRAIN, VALID)


def run(slot: Slot) -> list[dict[str, float]]:
    """Trains to the end and leaves nothing out."""
    metrics = []
    while not slot.finished:
        metrics.append(slot.train_step().metrics)
    return metrics


def adapter(slot: Slot, folder: Path) -> tuple[bytes, ...]:
    """The bytes of the adapter's files."""
    slot.save_adapter(folder)
    return tuple((folder / name).read_bytes() for name in ADAPTER_FILES)
