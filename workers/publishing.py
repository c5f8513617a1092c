"""From the trainer's checkpoint folder to a public model: artifact into storage first, then one fenced transaction.

A publication mints its own 8-character id, so neither a name nor a key is ever written twice; what a lost attempt
uploaded stays nameless and harmless.
"""

import asyncio
import csv
import hashlib
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.domain import ids
from service.domain.base import Base
from service.domain.errors import InvalidRequest, JobError
from service.domain.file import RESULT_PURPOSE, File, Segment
from service.domain.job import Claim
from service.domain.methods import check_servable
from service.domain.model import Manifest, Model, model_name
from service.operations import lookups, progress
from service.operations.context import Context
from service.storage.base import one_chunk
from workers.artifacts import store_artifact
from workers.staging import storage_retry
from workers.trainer.protocol import Checkpointed, Ready

# Of the result file, by objective: OpenAI's columns, and the metrics that fill them.
RESULT_COLUMNS: dict[str, dict[str, str]] = {
    "supervised": {
        "step": "step",
        "train_loss": "train_loss",
        "train_accuracy": "train_mean_token_accuracy",
        "valid_loss": "valid_loss",
        "valid_mean_token_accuracy": "valid_mean_token_accuracy",
    },
    "dpo": {
        "step": "step",
        "train_loss": "train_loss",
        "train_accuracy": "train_accuracy",
        "valid_loss": "valid_loss",
        "valid_accuracy": "valid_accuracy",
        "train_reward_margin": "train_reward_margin",
        "valid_reward_margin": "valid_reward_margin",
    },
}


class Publisher:
    """What one claim publishes."""

    def __init__(self, ctx: Context, claim: Claim, base: Base) -> None:
        self._ctx = ctx
        self._claim = claim
        self._base = base
        self._ready: Ready | None = None
        self._last: tuple[Model, dict[str, int | float]] | None = None

    def trained_by(self, ready: Ready) -> None:
        """What the trainer said of the base that the job has its slot in."""
        self._ready = ready

    async def checkpoint(self, report: Checkpointed) -> None:
        """Publishes a checkpoint; the last one waits for `finish`. One of an earlier attempt is not doubled."""
        if report.last:
            self._last = (await self._store(report, step=None), report.metrics)
        elif await lookups.find_checkpoint(self._ctx, self._claim, report.step) is None:
            model = await self._store(report, step=report.step)
            await progress.publish_checkpoint(self._ctx, self._claim, model, report.metrics)

    async def finish(self) -> None:
        """The job succeeds: its model, its last checkpoint and its result file become visible at once."""
        if self._last is None:
            raise JobError("server_error", "The training ended without a last checkpoint.")
        model, metrics = self._last
        await progress.finish(self._ctx, self._claim, model, metrics, await self._store_result())

    async def _store(self, report: Checkpointed, step: int | None) -> Model:
        job = self._claim.job
        self._check_servable()
        installation = await lookups.find_installation(self._ctx)
        name = model_name(job.base, installation.organization, job.suffix, ids.publication_id(), step)
        manifest = await self._manifest(report, name)
        await storage_retry(store_artifact)(self._ctx.storage, Path(report.folder), manifest)
        return Model(
            name=name,
            project_id=job.project_id,
            job_id=job.id,
            base=job.base,
            kind="final" if step is None else "checkpoint",
            step=report.step,
            tuning=job.tuning["type"],
            created_at=int(time.time()),
        )

    def _check_servable(self) -> None:
        """Once more, after the training: the catalogue may have changed since the job was created."""
        try:
            check_servable(self._base, self._claim.job.tuning)
        except InvalidRequest as error:
            raise JobError("not_servable", error.message, error.param) from error

    async def _manifest(self, report: Checkpointed, name: str) -> Manifest:
        job, ready = self._claim.job, self._ready
        assert ready is not None
        return Manifest(
            name=name,
            job_id=job.id,
            step=report.step,
            base=job.base,
            base_source=self._base.public_source,
            base_revision=ready.revision,
            base_hashes=ready.hashes,
            tuning=job.tuning["type"],
            objective=job.objective,
            hyperparameters={**job.hyperparameters, **job.tuning},
            seed=job.seed,
            parent=job.parent_model,
            data_hashes=await self._data_hashes(),
            environment=ready.environment,
            metrics=report.metrics,
            files={},  # filled in by store_artifact
            created_at=int(time.time()),
        )

    async def _data_hashes(self) -> dict[str, str]:
        job = self._claim.job
        named = {"training": job.training_file, "validation": job.validation_file}
        return {
            role: await lookups.file_hash(self._ctx, file_id) for role, file_id in named.items() if file_id is not None
        }

    async def _store_result(self) -> tuple[File, list[Segment]]:
        """`step_metrics.csv`, as OpenAI names it; cells that were not measured are empty."""
        rows = await lookups.metrics_of(self._ctx, self._claim.job.id)
        columns = RESULT_COLUMNS[self._claim.job.objective]
        content = await asyncio.to_thread(_csv, rows, columns)
        file_id = ids.file_id()
        segment = Segment(f"files/{file_id}/0", len(content), hashlib.sha256(content).hexdigest())
        await storage_retry(self._ctx.storage.put)(segment.key, one_chunk(content))
        file = File(
            id=file_id,
            project_id=self._claim.job.project_id,
            purpose=RESULT_PURPOSE,
            filename="step_metrics.csv",
            content_type="text/csv",
            bytes=len(content),
            created_at=int(time.time()),
        )
        return file, [segment]


def _csv(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row.get(source, "") for source in columns.values()] for row in rows)
    return text.getvalue().encode()
