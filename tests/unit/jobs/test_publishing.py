"""What a worker publishes, through the interface of `workers.jobs.publishing`."""

import pytest

from service.domain.errors import JobError
from service.installation.context import Context
from service.operations.keys import Caller
from service.recipes.base import Serving
from tests.given.stored_jobs import claimed
from workers.jobs.publishing import Publisher
from workers.trainer.protocol import Checkpointed


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
