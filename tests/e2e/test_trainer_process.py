"""The trainer as its supervisor sees it: a real child process that is shared, killed, starved and resumed."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from service.recipes.base import Base
from tests.given.recipes import recipe
from tests.given.slots import LORA, PROMPT
from tests.given.tiny_models import make_tiny_base, random_rows
from tests.given.trainers import Bits, read_bits, run, run_through_crashes, trainer
from tests.given.tunings import KINDS
from workers.model.load import environment, load_base
from workers.trainer.launch import TrainerConfig
from workers.trainer.parent.handle import TrainerHandle
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import Checkpointed, Crashed, Failed, JobSpec, Left, Report, Seated, Snapshotted, Stepped

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forks")]
FAULTY = "tests.faults.trainer"
TRAIN, VALID = random_rows(12, seed=1), random_rows(4, seed=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def undisturbed(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Callable[[JobSpec], Bits]:
    """The adapter of a job that trains alone, without a trainer process."""
    torch.use_deterministic_algorithms(True)
    loaded = load_base(base, torch.device("cpu"))

    def train(spec: JobSpec) -> Bits:
        slot = Slot(loaded, environment(loaded.device), spec, TRAIN, VALID)
        while not slot.finished:
            slot.train_step()
        folder = tmp_path_factory.mktemp("undisturbed") / "adapter"
        slot.save_adapter(folder)
        slot.leave()
        return read_bits(folder)

    return train


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Path]:
    """Makes the folder of a job; its name is the job's id."""

    def make(job_id: str, tuning: dict[str, Any] = LORA, **changes: Any) -> Path:
        values = {"n_epochs": 4, "batch_size": 3, "learning_rate": 1e-2, "seed": 7, "snapshot_steps": 3, **changes}
        folder = tmp_path / job_id
        folder.mkdir()
        spec = JobSpec(job_id=job_id, recipe=recipe(tuning), **values)
        (folder / "job.json").write_text(spec.model_dump_json())
        TRAIN.save(folder / "train.safetensors")
        VALID.save(folder / "valid.safetensors")
        return folder

    return make


def spec_of(folder: Path) -> JobSpec:
    return JobSpec.model_validate_json((folder / "job.json").read_bytes())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_job_beside_neighbours_that_leave_or_fail_is_bitwise_the_job_alone(
    base: Base, job: Callable[..., Path], undisturbed: Callable[[JobSpec], Bits], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    digest = tmp_path / "digest"
    monkeypatch.setenv("LUTHIER_FAULT_DIGEST", str(digest))
    lora, prompt = job("lora"), job("prompt", PROMPT)
    leaving, failing = job("leaving", seed=1, n_epochs=50), job("failing", learning_rate=1e30)
    async with trainer(base, FAULTY) as handle:

        def watch(report: Report | Crashed) -> None:
            if isinstance(report, Stepped) and report.step == 5:
                tasks.append(asyncio.create_task(handle.leave("leaving")))

        tasks: list[asyncio.Task[None]] = []
        ours, theirs, left, failed = await asyncio.gather(
            run(handle, lora), run(handle, prompt), run(handle, leaving, watch), run(handle, failing)
        )
        assert handle.ready is not None
        hashes = handle.ready.hashes
    assert ours.bits == undisturbed(spec_of(lora))
    assert theirs.bits == undisturbed(spec_of(prompt))
    assert left.reports[-1] == Left(job_id="leaving", finished=False)
    assert failed.of(Failed)[0].code == "training_diverged" and failed.reports[-1] is failed.of(Failed)[0]
    assert digest.read_text() == hashes["weights"]


async def test_reports_come_in_order_and_a_job_may_be_seated_again(base: Base, job: Callable[..., Path]) -> None:
    folder = job("order", n_epochs=2)
    async with trainer(base) as handle:
        outcome = await run(handle, folder)
        kinds = [type(report).__name__ for report in outcome.reports if not isinstance(report, Snapshotted)]
        steps = ["Stepped"] * 4
        assert kinds == ["Seated", *steps, "Checkpointed", *steps, "Checkpointed", "Left"]
        told = outcome.of(Snapshotted)  # beside the training: each some time after its step and its checkpoint
        assert [report.step for report in told] in ([3, 4, 6], [3, 4])  # at the end, nobody waits for the last one
        for report in told:
            before = outcome.reports[: outcome.reports.index(report)]
            assert report.step in [one.step for one in before if isinstance(one, Stepped)]
            assert report.step != 4 or any(isinstance(one, Checkpointed) for one in before)
        assert outcome.reports[0] == Seated(job_id="order", step=0, total_steps=8)
        assert outcome.reports[-1] == Left(job_id="order", finished=True)
        assert [report.last for report in outcome.of(Checkpointed)] == [False, True]
        assert {"train_loss", "valid_loss", "full_valid_loss"} <= set(outcome.of(Checkpointed)[0].metrics)
        assert outcome.of(Stepped)[-1].trained_tokens == 2 * TRAIN.num_tokens

        async for report in handle.seat("order", folder):  # whoever leaves the loop makes the job leave
            if isinstance(report, Stepped):
                break
        assert (await run(handle, folder)).bits == outcome.bits


async def test_leaving_with_a_snapshot_and_coming_back_loses_nothing(
    base: Base, job: Callable[..., Path], undisturbed: Callable[[JobSpec], Bits]
) -> None:
    folder = job("pausing", snapshot_steps=100)
    async with trainer(base) as handle:
        tasks: list[asyncio.Task[None]] = []

        def watch(report: Report | Crashed) -> None:
            if isinstance(report, Stepped) and report.step == 2:
                tasks.append(asyncio.create_task(handle.leave("pausing", snapshot=True)))

        first = await run(handle, folder, watch)
        assert not first.reports[-1].finished
        (folder / "snapshots" / Path(first.of(Snapshotted)[-1].folder).name).rename(folder / "resume")
        second = await run(handle, folder)
    assert second.of(Seated)[0].step == first.of(Snapshotted)[-1].step >= 2
    assert second.of(Seated)[0].difference == ""
    assert second.bits == undisturbed(spec_of(folder))


async def test_a_job_that_crashes_the_trainer_is_charged_and_its_neighbours_end_in_the_same_bits(
    base: Base, job: Callable[..., Path], undisturbed: Callable[[JobSpec], Bits], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUTHIER_FAULT_KILL_JOB", "deadly")
    monkeypatch.setenv("LUTHIER_FAULT_KILL_STEP", "4")
    lora, prompt, deadly = job("lora"), job("prompt", PROMPT), job("deadly", seed=3)
    async with trainer(base, FAULTY) as handle:
        ours, theirs, guilty = await asyncio.gather(
            *(run_through_crashes(handle, one) for one in (lora, prompt, deadly))
        )
    assert (ours.charged, theirs.charged, guilty.charged) == (0, 0, 3)
    assert ours.of(Crashed) and theirs.of(Crashed)
    assert ours.bits == undisturbed(spec_of(lora))
    assert theirs.bits == undisturbed(spec_of(prompt))


@pytest.mark.parametrize("kinds", [("bottleneck",), tuple(KINDS)], ids=["alone", "beside every other kind"])
async def test_a_trainer_killed_at_any_step_goes_on_to_the_same_bits(
    base: Base, job: Callable[..., Path], undisturbed: Callable[[JobSpec], Bits], kinds: tuple[str, ...]
) -> None:
    seed = random.randrange(2**32)
    step = random.Random(seed).randint(1, 7)
    print(f"seed {seed}: killed at step {step} of 8")  # noqa: T201
    folders = [job(kind, KINDS[kind], n_epochs=2, learning_rate=1e-3) for kind in kinds]
    killed: list[int] = []
    async with trainer(base) as handle:

        def watch(report: Report | Crashed) -> None:
            if isinstance(report, Stepped) and report.step >= step and not killed and handle.pid is not None:
                killed.append(handle.pid)
                os.kill(handle.pid, signal.SIGKILL)

        outcomes = await asyncio.gather(*(run_through_crashes(handle, folder, watch) for folder in folders))
    assert len(killed) == 1 and sum(outcome.charged for outcome in outcomes) <= 1
    for folder, outcome in zip(folders, outcomes, strict=True):
        assert outcome.of(Crashed) and outcome.bits == undisturbed(spec_of(folder)), folder.name


async def test_a_silent_parent_ends_the_trainer_in_the_middle_of_a_step_and_nobody_is_charged(
    base: Base, job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUTHIER_FAULT_HANG_JOB", "hanging")
    config = TrainerConfig(base=base, device="cpu", threads=1, turn_tokens=100, lease_seconds=1.0)
    handle = TrainerHandle([sys.executable, "-m", FAULTY, config.model_dump_json()])
    outcome = await run(handle, job("hanging"))
    assert outcome.reports[-1] == Crashed("hanging", guilty=False)
    assert handle.pid is None
    await handle.stop()


async def test_stopping_ends_the_process_at_once_and_lets_the_jobs_go(
    base: Base, job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUTHIER_FAULT_HANG_JOB", "hanging")
    async with trainer(base, FAULTY) as handle:
        stay = asyncio.create_task(run(handle, job("hanging")))
        while handle.ready is None:
            await asyncio.sleep(0.05)
        pid = handle.pid
        assert pid is not None
        async with asyncio.timeout(5):  # its stdin ends, as it does when this process is killed
            await handle.stop()
            outcome = await stay
        assert outcome.reports[-1] == Left(job_id="hanging", finished=False)
        assert not alive(pid) and handle.pid is None
        assert (await run(handle, job("late"))).reports == [Left(job_id="late", finished=False)]


async def test_a_trainer_that_cannot_start_is_nobodys_fault(
    base: Base, job: Callable[..., Path], tmp_path: Path
) -> None:
    async with trainer(base.model_copy(update={"source": str(tmp_path)})) as handle:
        assert (await run(handle, job("one"))).reports == [Crashed("one", guilty=False)]
