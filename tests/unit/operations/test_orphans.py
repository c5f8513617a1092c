"""Bytes that no row names go when they are old; everything that somebody may still need stays."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import pytest

from service.domain.job import Status
from service.domain.model import MANIFEST, Manifest
from service.domain.storage_keys import INSTALLATION, artifact_prefix, dataset_key
from service.installation.context import Context
from service.operations import chores, keys, uploads
from service.operations.keys import Caller
from service.operations.orphans import OrphanSweep
from service.settings.settings import Settings
from service.storage.base import one_chunk
from tests.given.installation import installed
from tests.given.stored_files import add_file
from tests.given.stored_jobs import add_job, move
from tests.given.stored_models import add_model
from tests.servers.radosgw import Radosgw

NAME = "ft:luthier-tiny:luthier::AbCd1234"


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
async def ctx(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Context]:
    """An installation that takes everything for old."""
    changed: dict[str, object] = {"orphan_age_seconds": 0}
    if request.param == "s3":
        radosgw: Radosgw = request.getfixturevalue("radosgw")
        changed |= {**radosgw.settings, "storage_url": f"{radosgw.new_bucket()}/prefix"}
    async with installed(Settings(**(settings.model_dump() | changed))) as ctx:
        yield ctx


async def put(ctx: Context, *names: str) -> None:
    for name in names:
        await ctx.storage.put(name, one_chunk(b"x"))


async def left(ctx: Context) -> list[str]:
    return [found.key async for found in ctx.storage.list("") if found.key != INSTALLATION]


def manifest(name: str, job_id: str) -> bytes:
    texts = dict.fromkeys(("base", "base_source", "base_revision", "tuning", "objective"), "x")
    empty = {key: {} for key in ("base_hashes", "hyperparameters", "data_hashes", "environment", "metrics", "files")}
    numbers = {"step": 1, "seed": 1, "created_at": 1}
    made = Manifest(name=name, job_id=job_id, parent=None, **texts, **empty, **numbers)  # type: ignore[arg-type]
    return made.model_dump_json().encode()


async def test_bytes_of_a_file_without_a_row_go_and_those_of_a_file_stay(ctx: Context, caller: Caller) -> None:
    file = await add_file(ctx, caller, num_segments=1)
    await put(ctx, f"files/{file}/0", "files/file-nobody/0")
    await OrphanSweep(ctx).sweep()
    assert await left(ctx) == [f"files/{file}/0"]


async def test_young_bytes_stay(ctx: Context, caller: Caller) -> None:
    await put(ctx, "files/file-nobody/0")
    patient = dataclasses.replace(ctx, settings=ctx.settings.model_copy(update={"orphan_age_seconds": 3600}))
    await OrphanSweep(patient).sweep()
    assert await left(ctx) == ["files/file-nobody/0"]


async def test_parts_of_an_upload_stay_and_those_of_none_go(ctx: Context, caller: Caller) -> None:
    upload = await uploads.create(ctx, caller, uploads.NewUpload("a.jsonl", "fine-tune", "text/jsonl", 1))
    await put(ctx, f"uploads/{upload.id}/part_1", "uploads/upload_nobody/part_1")
    await OrphanSweep(ctx).sweep()
    assert await left(ctx) == [f"uploads/{upload.id}/part_1"]


async def test_a_jobs_objects_stay_until_they_are_swept_and_those_of_none_go(ctx: Context, caller: Caller) -> None:
    job = await add_job(ctx, caller, "running")
    await put(ctx, f"jobs/{job.id}/snapshots/1-50-7/state", "jobs/ftjob-nobody/data/1/train")
    await OrphanSweep(ctx).sweep()
    assert await left(ctx) == [f"jobs/{job.id}/snapshots/1-50-7/state"]


async def test_tokenised_rows_stay_while_a_job_names_them_and_those_of_none_go(ctx: Context, caller: Caller) -> None:
    job = await add_job(ctx, caller, "queued")
    await move(ctx, job.id, "queued", training_data=dataset_key("named"))
    await put(ctx, dataset_key("named"), dataset_key("nobodys"))
    await OrphanSweep(ctx).sweep()
    assert await left(ctx) == [dataset_key("named")]


async def test_the_artifact_of_a_model_stays(ctx: Context, caller: Caller) -> None:
    job = await add_job(ctx, caller, "succeeded")
    await add_model(ctx, caller, job.id, NAME, kind="final")
    await put(ctx, artifact_prefix(NAME) + "adapter_model.safetensors")
    await OrphanSweep(ctx).sweep()
    assert len(await left(ctx)) == 1


@pytest.mark.parametrize(
    ("status", "stays"), [("running", True), ("paused", True), ("failed", False), ("succeeded", False)]
)
async def test_a_nameless_artifact_stays_while_its_job_has_not_ended(
    ctx: Context, caller: Caller, status: Status, stays: bool
) -> None:
    job = await add_job(ctx, caller, status)
    await put(ctx, artifact_prefix(NAME) + "adapter_model.safetensors")
    await ctx.storage.put(artifact_prefix(NAME) + MANIFEST, one_chunk(manifest(NAME, job.id)))
    await OrphanSweep(ctx).sweep()
    assert len(await left(ctx)) == (2 if stays else 0)


async def test_half_an_artifact_goes_and_one_that_cannot_be_read_stays(ctx: Context, caller: Caller) -> None:
    await put(ctx, "adapters/half/adapter_model.safetensors", f"adapters/strange/{MANIFEST}")
    await OrphanSweep(ctx).sweep()
    assert await left(ctx) == [f"adapters/strange/{MANIFEST}"]


async def test_what_is_in_no_known_room_is_left_alone(ctx: Context, caller: Caller) -> None:
    await put(ctx, "notes", "backups/monday")
    await OrphanSweep(ctx).sweep()
    assert await left(ctx) == ["backups/monday", "notes"]


async def test_a_sweep_goes_on_where_the_one_before_stopped(
    ctx: Context, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.operations.orphans.SWEEP_OBJECTS", 2)
    await put(ctx, *(f"files/file-{number}/0" for number in range(3)), "notes")
    sweep = OrphanSweep(ctx)
    await sweep.sweep()
    assert await left(ctx) == ["files/file-2/0", "notes"]
    await sweep.sweep()
    await sweep.sweep()  # came to the end, and begins again
    await put(ctx, "files/file-0/0")
    await sweep.sweep()
    assert await left(ctx) == ["notes"]


async def test_another_installations_store_is_not_swept(
    ctx: Context, caller: Caller, tmp_path_factory: pytest.TempPathFactory
) -> None:
    await OrphanSweep(ctx).sweep()
    await put(ctx, "files/file-nobody/0")
    elsewhere = Settings(data_dir=tmp_path_factory.mktemp("other"), orphan_age_seconds=0)
    async with installed(elsewhere) as other:
        await keys.ensure_installation(other)
        await OrphanSweep(dataclasses.replace(other, storage=ctx.storage)).sweep()
        assert await left(ctx) == ["files/file-nobody/0"]
    await OrphanSweep(ctx).sweep()
    assert await left(ctx) == []


async def test_the_chores_look_for_orphans(ctx: Context, caller: Caller) -> None:
    await put(ctx, "files/file-nobody/0")
    chore = asyncio.create_task(chores.run(ctx))
    async with asyncio.timeout(20):
        while await left(ctx):
            await asyncio.sleep(0.05)
    chore.cancel()
    await asyncio.gather(chore, return_exceptions=True)
