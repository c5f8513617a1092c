"""Small jobs of a few known kinds, and the hash of the weights that each kind ends in when nobody disturbs it.

A kind is a seed; the same kind always trains the same rows, so that its undisturbed twin need be trained only once.
"""

import asyncio
import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

from openai import OpenAI

from service.installation.context import Context
from tests.given.journey import rows
from tests.given.running_service import wait_for_status
from tests.production import Production
from workers.files.artifacts import fetch_artifact

ROWS = 60
BATCH = 2
EPOCHS = 2
STEPS = ROWS // BATCH * EPOCHS


class Twins:
    """The training file of the set, and the undisturbed hashes by kind."""

    def __init__(self, production: Production) -> None:
        self._production = production
        client = production.client()
        self.training_file = client.files.create(file=("rows.jsonl", rows(ROWS)), purpose="fine-tune").id
        self._undisturbed: dict[int, str] = {}

    def create(self, kind: int, training_file: str = "") -> str:
        """A new job of this kind, on a copy of the file if one is named; returns its id."""
        hyperparameters = {"n_epochs": EPOCHS, "batch_size": BATCH}
        return (
            self._production.client()
            .fine_tuning.jobs.create(
                model="tiny",
                training_file=training_file or self.training_file,
                seed=kind,
                method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},  # type: ignore[arg-type]
                extra_body={"tuning": {"type": "lora", "lora": {"r": 4, "dropout": 0.1}}},
            )
            .id
        )

    def undisturbed(self, kind: int) -> str:
        """The hash of the weights of this kind. Trained at the first call: call it before the faults begin."""
        if kind not in self._undisturbed:
            job = wait_for_status(self._production.client(), self.create(kind), "succeeded", seconds=180)
            assert job.fine_tuned_model is not None
            self._undisturbed[kind] = weights_hash(self._production, job.fine_tuned_model)
        return self._undisturbed[kind]


def weights_hash(production: Production, model: str) -> str:
    """sha256 of the adapter's weights as an engine would fetch them, every byte checked against the manifest."""
    return asyncio.run(_weights_hash(production.context(), model))


async def _weights_hash(ctx: Context, model: str) -> str:
    with TemporaryDirectory() as folder:
        try:
            artifact = await fetch_artifact(ctx.storage, model, Path(folder) / "cache")
        finally:
            await ctx.close()
        return hashlib.sha256((artifact / "adapter_model.safetensors").read_bytes()).hexdigest()


def told(client: OpenAI, job_id: str) -> tuple[list[str], list[int]]:
    """The job's messages and the steps of its metrics, oldest first, as its user sees them."""
    events = list(client.fine_tuning.jobs.list_events(job_id, limit=100))[::-1]
    said = [event.message for event in events if event.type == "message"]
    steps = [event.data["step"] for event in events if event.type == "metrics"]
    return said, steps
