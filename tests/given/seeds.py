"""What openai-python's tests expect to find: files, a running job, its events and checkpoints, and tuned models.

Written into the database through the same functions as real rows, so that a list has items whose every field the strict
client checks; those tests know ids that no operation would give.
"""

import hashlib
import json
import time
from dataclasses import replace

from service.db import events, files, jobs, keys, model_aliases, model_imports, models, uploads, webhooks, work
from service.db.connection import Transaction
from service.db.keys import ApiKey, Installation
from service.db.tables import metadata
from service.domain import event as wording
from service.domain.file import File, Segment
from service.domain.job import Checkpoint, Job
from service.domain.model import Model, Permission
from service.domain.model_alias import AliasChange, ModelAlias
from service.domain.model_import import ARCHIVE, ModelImport
from service.domain.storage_keys import part_key
from service.domain.upload import LIFE_SECONDS, Upload, UploadPart
from service.domain.webhook import WebhookEndpoint, new_secret
from service.installation.context import Context
from service.operations.job_work import TRAIN
from service.recipes.tuning import TUNINGS
from service.storage.base import one_chunk
from tests.given.stored_checks import store_masks, write_check

GRANTEE, PERMISSION = "string", "cp_zc4Q7MP6XxulcVzj4MZdwsAB"
PROJECT, BASE = "proj_conformance", "luthier-tiny"
API_KEY_ID = "key_conformance"
API_KEY = "My API Key"  # openai-python's tests say so
JOB = "ft-AF1WoRqd3aJAHsqc9NY7iL8F"
CHECK = "ftcheck-AF1WoRqd3aJAHsqc9NY7iL8F"
FILES = ("file_id", "file-abc123")
DELETABLE = "ft:gpt-4o-mini:acemeco:suffix:abc123"
UPLOAD = "upload_abc123"
CHECKPOINT = "ft:gpt-4o-mini-2024-07-18:org:weather:B7R9VjQd"
ALIAS = "support"
WEBHOOK = "whe_seed"
IMPORT = "modelimport-seed"
LEASE_SECONDS = 1e12  # a real worker must not take the seeded job over
KEPT_TABLES = ("installation", "projects", "api_keys", "alembic_version")

ROWS = "".join(
    json.dumps({"messages": [{"role": "user", "content": f"{n} + 1"}, {"role": "assistant", "content": str(n + 1)}]})
    + "\n"
    for n in range(12)
).encode()
SEGMENT = Segment("files/seed/0", len(ROWS), hashlib.sha256(ROWS).hexdigest())
PART = UploadPart("string", UPLOAD, 1, replace(SEGMENT, key=part_key(UPLOAD, "string")))


async def install(ctx: Context) -> None:
    """Once: the project, the key that the tests use, and the bytes of the files."""
    await ctx.storage.put(SEGMENT.key, one_chunk(ROWS))
    async with ctx.database.transaction() as tx:
        await keys.add_installation(tx, Installation("org-conformance", ctx.settings.organization))
        await keys.add_project(tx, PROJECT, "conformance")
        await keys.add_project(tx, GRANTEE, GRANTEE)
        key = ApiKey(API_KEY_ID, PROJECT, "project", "openai-python", int(time.time()))
        await keys.add_key(tx, key, hashlib.sha256(API_KEY.encode()).hexdigest())


async def renew(ctx: Context) -> None:
    """Everything as it was before the first test."""
    await ctx.storage.put(PART.segment.key, one_chunk(ROWS))  # a sweep may have been here
    await store_masks(ctx)
    async with ctx.database.transaction() as tx:
        for table in reversed(metadata.sorted_tables):
            if table.name not in KEPT_TABLES:
                await tx.connection.execute(table.delete())
        for id in FILES:
            file = File(id, PROJECT, "fine-tune", "train.jsonl", "text/jsonl", len(ROWS), int(time.time()))
            await files.add(tx, file, [SEGMENT])
        await jobs.add(tx, _job())
        await write_check(tx, PROJECT, FILES[0], CHECK)
        await _begin_upload(tx)
        await work.add(tx, TRAIN.name, JOB, PROJECT, BASE)
        (added,) = await work.find(tx, JOB)
        await work.take(tx, added, "worker_seed", LEASE_SECONDS, 0)
        await _tell(tx)
        await _publish(tx)


def _job() -> Job:
    hyperparameters = {"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.0}
    return Job(
        JOB, PROJECT, BASE, FILES[1], FILES[0], "supervised", TUNINGS.default().stored(), hyperparameters, seed=42,
        suffix="weather", status="running", created_at=int(time.time()), metadata={"foo": "string"}, step=10,
        total_steps=36, seconds_per_step=1.5, trained_tokens=100,
        integrations=[{"type": "wandb", "wandb": {"project": "my-wandb-project", "tags": ["custom-tag"]}}],
    )  # fmt: skip


async def _begin_upload(tx: Transaction) -> None:
    now = int(time.time())
    size, expires_at = PART.segment.bytes, now + LIFE_SECONDS
    await uploads.add(
        tx, Upload(UPLOAD, PROJECT, "train.jsonl", "fine-tune", "text/jsonl", size, now, expires_at, None)
    )
    assert await uploads.add_part(tx, PART)


async def _tell(tx: Transaction) -> None:
    metrics = {"step": 10, "total_steps": 36, "train_loss": 1.5, "train_mean_token_accuracy": 0.5, "valid_loss": 2.0}
    told = [
        wording.created(JOB),
        wording.validating(FILES[1], FILES[0]),
        wording.validated(),
        wording.started(),
        wording.warning("something to know", key="warning"),
        wording.step(metrics),
        wording.checkpoint_created(10, CHECKPOINT),
    ]
    await events.add(tx, JOB, told)


async def _publish(tx: Transaction) -> None:
    now = int(time.time())
    await models.add(tx, Model(DELETABLE, PROJECT, JOB, BASE, "final", 36, "lora", now))
    await models.add(tx, Model(CHECKPOINT, PROJECT, JOB, BASE, "checkpoint", 10, "lora", now))
    await models.add_permission(tx, Permission(PERMISSION, CHECKPOINT, PROJECT, now))
    await model_aliases.add(tx, ModelAlias(ALIAS, PROJECT, BASE, None, CHECKPOINT, now, now))
    change = AliasChange("aliaschange_seed", PROJECT, ALIAS, "created", BASE, None, "key_conformance", "seed", now)
    await model_aliases.add_change(tx, change, 10)
    refused = {"code": "invalid_adapter", "message": "The archive has no adapter_model.safetensors.", "param": "file"}
    files_sent = {ARCHIVE: FILES[0]}
    one = ModelImport(IMPORT, PROJECT, BASE, None, None, files_sent, False, "failed", now, now, error=refused)
    await model_imports.add(tx, one)
    target = ("seed", "https://127.0.0.1:1/", ["fine_tuning.job.succeeded"], new_secret())  # may not be called
    await webhooks.add_endpoint(tx, WebhookEndpoint(WEBHOOK, PROJECT, *target, now, now))
    metrics = {"step": 10, "train_loss": 1.5, "train_mean_token_accuracy": 0.5, "full_valid_loss": 2.0}
    await models.add_checkpoint(tx, Checkpoint("ftckpt_seed", JOB, 10, CHECKPOINT, metrics, now))
