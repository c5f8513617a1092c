"""Models and checkpoints written into the database as if a job had published them, and what it keeps of them.

The database is used directly because a tuned model appears only at the end of a training, which tests do not need, and
because no operation shows a model that was deleted.
"""

import hashlib
import time
from collections.abc import Mapping

from service.db import models
from service.domain.job import Checkpoint
from service.domain.model import MANIFEST, Manifest, Model, ModelKind, TaskName
from service.domain.storage_keys import artifact_prefix
from service.installation.context import Context
from service.operations.keys import Caller
from service.storage.base import one_chunk


async def add_model(
    ctx: Context,
    caller: Caller,
    job_id: str,
    name: str,
    *,
    base: str = "luthier-tiny",
    kind: ModelKind = "checkpoint",
    step: int = 10,
    task: TaskName = "generate",
    tuning: str = "lora",
) -> str:
    """A public model of the caller's; its name."""
    model = Model(name, caller.project_id, job_id, base, kind, step, tuning, int(time.time()), task=task)
    async with ctx.database.transaction() as tx:
        await models.add(tx, model)
    return name


async def list_as_checkpoint(ctx: Context, job_id: str, name: str, step: int) -> None:
    """Lists a model among its job's checkpoints."""
    checkpoint = Checkpoint(f"ftckpt_{step}", job_id, step, name, {"step": step}, int(time.time()))
    async with ctx.database.transaction() as tx:
        await models.add_checkpoint(tx, checkpoint)


async def find_model(ctx: Context, name: str) -> Model | None:
    """The model's row, deleted or not, of any project."""
    async with ctx.database.reading() as tx:
        return await models.find(tx, None, name)


async def checkpoint_names(ctx: Context, job_id: str) -> list[str]:
    """The models of the job's checkpoints, newest first."""
    async with ctx.database.reading() as tx:
        return [checkpoint.model_name for checkpoint in await models.checkpoint_page(tx, job_id, None, 200)]


async def unswept_models(ctx: Context) -> list[str]:
    """Deleted models whose bytes may go now."""
    async with ctx.database.reading() as tx:
        return await models.unswept(tx, 10)


async def prune_checkpoints(ctx: Context, job_id: str, *, kept: int) -> None:
    """Deletes the job's older checkpoints, as publishing a new one does."""
    async with ctx.database.transaction() as tx:
        await models.delete_old_checkpoints(tx, job_id, kept)


async def store_files(ctx: Context, name: str, files: Mapping[str, bytes]) -> bytes:
    """The artifact of the model `name`: these files, and their manifest, which is returned as it is stored."""
    hashes = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    manifest = Manifest(
        name=name, job_id="ftjob-1", step=1, base="luthier-tiny", base_source="tiny", base_revision="", base_hashes={},
        tuning="lora", objective="supervised", hyperparameters={}, seed=0, parent=None, data_hashes={}, environment={},
        metrics={}, files=hashes, created_at=1,
    )  # fmt: skip
    stored = manifest.model_dump_json().encode()
    for file, content in {**files, MANIFEST: stored}.items():
        await ctx.storage.put(artifact_prefix(name) + file, one_chunk(content))
    return stored
