"""What a worker publishes, through the interface of `workers.jobs.publishing`."""

from pathlib import Path

import pytest

from service.domain.errors import JobError
from service.installation.context import Context
from service.operations import jobs
from service.operations.keys import Caller
from service.recipes.base import Serving
from tests.given.stored_jobs import claimed
from workers.files.artifacts import read_manifest
from workers.jobs.publishing import Publisher
from workers.trainer.protocol import Checkpointed, Ready

READY = Ready(revision="", hashes={}, environment={})


async def test_what_engines_cannot_serve_any_more_is_not_published(ctx: Context, caller: Caller) -> None:
    """The catalogue changed while the job trained."""
    claim = await claimed(ctx, caller)
    base = ctx.catalogue.bases["luthier-tiny"].model_copy(
        update={"serving": Serving(engine="vllm", tunings=frozenset({"lora"}), max_rank=1)}
    )
    report = Checkpointed(job_id=claim.job.id, step=1, folder="nowhere", metrics={}, last=True)
    with pytest.raises(JobError) as caught:
        await Publisher(claim, base).checkpoint(report)
    assert (caught.value.code, caught.value.param) == ("not_servable", "tuning.lora.r")
    assert [key async for key in ctx.storage.list("adapters/")] == []


@pytest.mark.parametrize(("alias", "says"), [(None, "luthier-tiny"), ("gpt-4o-mini-2024-07-18",) * 2])
async def test_a_checkpoint_is_named_after_what_the_job_was_created_through(
    ctx: Context, caller: Caller, tmp_path: Path, alias: str | None, says: str
) -> None:
    held = await claimed(ctx, caller, alias=alias)
    publisher = Publisher(held, ctx.catalogue.bases["luthier-tiny"])
    publisher.trained_by(READY)
    (tmp_path / "checkpoint").mkdir()
    report = Checkpointed(
        job_id=held.job.id, step=3, folder=str(tmp_path / "checkpoint"), metrics={"step": 3}, last=False
    )
    await publisher.checkpoint(report)
    (checkpoint,) = (await jobs.checkpoint_page(ctx, caller, held.job.id, after=None, limit=10)).items
    name = checkpoint.checkpoint.model_name
    assert name.startswith(f"ft:{says}:luthier::") and name.endswith(":ckpt-step-3")
    assert (await read_manifest(ctx.storage, name)).base == "luthier-tiny"
