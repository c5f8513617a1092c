"""What a job's user is told at the end about a training that taught the model little."""

from pathlib import Path

import pytest

from service.domain.job import Publication
from service.installation.context import Context
from service.operations.keys import Caller
from service.operations.progress import StepRecord
from service.settings.settings import Settings
from tests.given.stored_jobs import BASES, a_model, claimed, move, state, stored_events
from tests.given.work import claim_announcement
from workers.integrations.tracker import Tracker
from workers.jobs import announce
from workers.jobs.announce import JobAnnouncement, Learning

STEPS = 40


@pytest.fixture
def database_url() -> str:
    """The embedded database alone: what is read of it is a page of events."""
    return ""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Without engines a model is announced at once."""
    return Settings(data_dir=tmp_path / "data", engine_urls="")


@pytest.mark.parametrize(
    ("start", "end", "accuracy", "said"),
    [
        (3.2, 0.4, 0.9, None),
        (3.2, 0.4, None, None),  # an objective without right tokens
        (0.7, 0.69, None, "learnt little: its loss went from 0.700 to 0.690 in 40 steps. Try"),
        (1.0, 1.5, 0.6, "ended above its start: 1.500 after 40 steps, from 1.000. Try a smaller"),
        (6.0, 5.0, 0.08, "from 6.000 to 5.000 in 40 steps, and 8% of the tokens are right. Try more epochs"),
        (1.0, 1.01, 0.6, "learnt little"),  # noise, no rise
    ],
)
def test_a_training_that_taught_little_says_so_with_its_numbers(
    start: float, end: float, accuracy: float | None, said: str | None
) -> None:
    event = Learning(40, start, end, accuracy).event()
    if said is None:
        assert event is None
    else:
        assert event is not None
        assert said in event.message
        assert event.level == "warn"
        assert event.data["loss_at_start"] == start
        assert event.data["loss_at_end"] == end


@pytest.mark.parametrize(
    ("last_loss", "accuracy", "said"),
    [(1.5, 0.5, "ended above its start: 1.500 after 40 steps, from 1.000"),
     (0.5, 0.04, "from 1.000 to 0.500 in 40 steps, and 4% of the tokens are right"), (0.5, 0.5, None)],
)  # fmt: skip
async def test_an_announced_job_says_what_its_own_first_and_last_steps_taught(
    ctx: Context, caller: Caller, monkeypatch: pytest.MonkeyPatch, last_loss: float, accuracy: float, said: str | None
) -> None:
    monkeypatch.setattr(announce, "BATCH", 7)
    claim = await claimed(ctx, caller)
    await move(ctx, claim.job.id, "running", total_steps=STEPS)
    losses = [1.0] * 4 + [9.0] * (STEPS - 8) + [last_loss] * 4  # those between say nothing
    metrics = [
        {"step": step, "total_steps": STEPS, "train_loss": loss, "train_mean_token_accuracy": accuracy}
        for step, loss in enumerate(losses, start=1)
    ]
    await claim.record_steps([StepRecord(number, 10 * number, one) for number, one in enumerate(metrics, 1)], None)
    await claim.trained(Publication(a_model(claim).name, STEPS, {}, sample="jobs/x/y.json", sample_sha256="0"))
    held = await claim_announcement(ctx, "two", BASES)
    assert held is not None
    await JobAnnouncement(held, ctx.catalogue.bases[BASES[0]], Tracker(held, set())).run()
    assert (await state(ctx, claim.job.id)).status == "succeeded"
    warnings = [event.message for event in await stored_events(ctx, claim.job.id) if "loss_at_start" in event.data]
    assert len(warnings) == (0 if said is None else 1)
    assert said is None or said in warnings[0]
