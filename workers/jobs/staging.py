"""A job's folder on a worker: filled from storage before the job is seated; and storing what the trainer wrote.

Every transfer is checked by SHA-256 and retried while storage is unavailable. Has no job states.
"""

import asyncio
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from service.domain.errors import JobError
from service.domain.file import Segment
from service.domain.storage_keys import artifact_prefix
from service.installation.context import Context
from service.operations import lookups
from service.operations.progress import HeldJob
from service.recipes.base import Base
from service.recipes.objective import find_objective, own_settings
from service.recipes.recipe import Recipe
from service.recipes.safeguards import safeguards_of
from service.recipes.served_form import form_of
from service.recipes.tuning import TuningSettings, row_tokens, tuning_of
from service.storage import ObjectMissing, ObjectStore
from service.storage.base import CHUNK_BYTES, one_chunk
from workers.files import transfer
from workers.files.artifacts import ArtifactCorrupt, read_manifest
from workers.files.transfer import ObjectCorrupt, storage_retry
from workers.model.load import base_size
from workers.trainer.protocol import AGREEMENT_TOKENS, JobSpec

log = structlog.get_logger()
TRAINING = "train.safetensors"
VALIDATION = "valid.safetensors"


async def stage_job(held: HeldJob, base: Base, folder: Path) -> None:
    """Fills the job's folder as `workers.trainer.protocol` describes it; what was in it is deleted. Raises JobError."""
    ctx, job = held.ctx, held.job
    assert job.training_data is not None
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    await asyncio.to_thread(folder.mkdir, parents=True)
    await _stage_data(held, job.training_data, folder / TRAINING)
    if job.validation_data is not None:
        await _stage_data(held, job.validation_data, folder / VALIDATION)
    await _stage_snapshot(ctx, job.id, folder / "resume")
    if job.parent_model is not None:
        await _stage_parent(ctx.storage, job.parent_model, folder / "parent")
    tuning = tuning_of(job.tuning)
    objective = own_settings(find_objective(job.objective), job.hyperparameters)
    spec = JobSpec(
        job_id=job.id,
        recipe=Recipe(objective=objective, tuning=tuning, task=objective.task),
        n_epochs=job.hyperparameters["n_epochs"],
        batch_size=job.hyperparameters["batch_size"],
        learning_rate=job.hyperparameters["learning_rate_multiplier"] * await learning_rate(base, tuning),
        seed=job.seed,
        snapshot_steps=ctx.settings.snapshot_steps,
        agreement_tokens=agreement_tokens(base, tuning),
        safeguards=safeguards_of(job.safeguards),
        served_form=form_of(job.tuning),
    )
    await asyncio.to_thread((folder / "job.json").write_text, spec.model_dump_json(), encoding="utf-8")


def agreement_tokens(base: Base, tuning: TuningSettings) -> int:
    """How many tokens of an agreement row fit the context, with the tuning's own tokens and one that is generated."""
    return max(2, min(AGREEMENT_TOKENS, row_tokens(base, tuning) - 1))


async def learning_rate(base: Base, tuning: TuningSettings) -> float:
    """What the job's multiplier is applied to: the catalogue's rate for the tuning, or the tuning's default."""
    if tuning.name in base.learning_rate:
        return base.learning_rate[tuning.name]
    return tuning.default_learning_rate(await asyncio.to_thread(base_size, base))


async def store_folder(store: ObjectStore, folder: Path, prefix: str) -> dict[str, str]:
    """Stores every file of `folder` under `prefix`; returns name -> sha256."""
    names = await asyncio.to_thread(lambda: sorted(path.name for path in folder.iterdir() if path.is_file()))
    return {name: await store_file(store, folder / name, prefix + name) for name in names}


store_file = storage_retry(transfer.store_file)
fetch_file = storage_retry(transfer.fetch_file)


@storage_retry
async def store_bytes(store: ObjectStore, key: str, content: bytes) -> str:
    """Stores `content`, all of it at every try; returns its sha256."""
    await store.put(key, one_chunk(content))
    return hashlib.sha256(content).hexdigest()


async def fetch_folder(store: ObjectStore, prefix: str, files: Mapping[str, str], folder: Path) -> None:
    """Fetches the named files into `folder`. Raises ObjectCorrupt or ObjectMissing."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    for name, sha256 in files.items():
        if await fetch_file(store, prefix + name, folder / name) != sha256:
            raise ObjectCorrupt(prefix + name)


async def fetch_segments(store: ObjectStore, segments: Sequence[Segment], path: Path) -> None:
    """Fetches a file's segments into one local file. Raises ObjectCorrupt or ObjectMissing."""
    part = path.with_name(f"{path.name}.part")
    with await asyncio.to_thread(path.open, "wb") as stream:
        for segment in segments:
            if await fetch_file(store, segment.key, part) != segment.sha256:
                raise ObjectCorrupt(segment.key)
            with await asyncio.to_thread(part.open, "rb") as source:
                await asyncio.to_thread(shutil.copyfileobj, source, stream, CHUNK_BYTES)
    await asyncio.to_thread(part.unlink, missing_ok=True)


async def _stage_data(held: HeldJob, key: str, path: Path) -> None:
    """Fetches tokenised rows. Raises JobError where they are missing, such as after restoring an old backup.

    Then no other job uses them: the next one of the same content has them made again.
    """
    shared = await lookups.find_dataset(held.ctx, key)
    try:
        sha256 = await fetch_file(held.ctx.storage, key, path)
        if shared is not None and sha256 != shared.sha256:
            raise ObjectCorrupt(key)
    except (ObjectCorrupt, ObjectMissing) as error:
        log.warning("data.unavailable", key=key, reason=type(error).__name__)
        await held.remove_dataset(key)
        fault = "damaged" if isinstance(error, ObjectCorrupt) else "missing"
        message = f"The job cannot continue: its data is {fault} in storage. Please create the job again."
        raise JobError("data_unavailable", message) from error


async def _stage_snapshot(ctx: Context, job_id: str, folder: Path) -> None:
    """Fetches the newest snapshot that is intact; without one the job starts at its beginning."""
    for snapshot in await lookups.find_snapshots(ctx, job_id):
        try:
            await fetch_folder(ctx.storage, snapshot.prefix, snapshot.files, folder)
        except (ObjectCorrupt, ObjectMissing) as error:
            log.warning("snapshot.unusable", job_id=job_id, step=snapshot.step, reason=type(error).__name__)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        else:
            return


async def _stage_parent(store: ObjectStore, name: str, folder: Path) -> None:
    """Fetches the weights that the job starts from. Raises JobError when they are missing or damaged."""
    try:
        manifest = await storage_retry(read_manifest)(store, name)
        await fetch_folder(store, artifact_prefix(name), manifest.files, folder)
    except (ArtifactCorrupt, ObjectCorrupt, ObjectMissing) as error:
        log.warning("parent.unusable", model=name, reason=type(error).__name__)
        message = f"The job cannot continue '{name}': its artifact is missing or damaged in storage."
        raise JobError("parent_unavailable", message, param="model") from error
