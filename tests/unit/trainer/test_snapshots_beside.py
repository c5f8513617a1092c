"""Snapshots are written beside the training: a disk that blocks holds up nobody but the job whose snapshot it is."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.given.recipes import recipe
from tests.given.slots import ADAPTER_FILES, LORA, PROMPT, TRAIN, VALID, seat
from tests.given.slots import adapter as adapter_of
from tests.given.slots import run as train
from tests.given.tiny_models import make_tiny_base
from tests.given.trainer_in_process import Script, job_folder, run
from workers.files.disk import DiskFull
from workers.model.load import LoadedBase, load_base
from workers.trainer.process import snapshot
from workers.trainer.process.snapshot import Snapshot
from workers.trainer.protocol import (
    Checkpointed,
    JobSpec,
    Leave,
    Left,
    Pause,
    Paused,
    Report,
    Snapshotted,
    Stepped,
    Turn,
)

SECONDS = 60.0


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Makes the folder of a job of 8 steps, 4 in an epoch."""
    (tmp_path / "jobs").mkdir()

    def job(job_id: str, tuning: dict[str, Any], **changes: Any) -> Path:
        values = {"n_epochs": 2, "batch_size": 3, "learning_rate": 1e-2, "seed": 7, "snapshot_steps": 1, **changes}
        spec = JobSpec(job_id=job_id, recipe=recipe(tuning), **values)
        return job_folder(tmp_path / "jobs", spec, TRAIN, VALID)

    return job


class Disk:
    """Blocks the writing of one job's snapshots until it is let go; counts who writes at the same time."""

    def __init__(self, job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        self.fault: Exception | None = None
        self.begun = 0
        self.most = 0
        self._now = 0
        write = Snapshot.write

        def blocking_write(taken: Snapshot, folder: Path) -> None:
            if taken.state.job_id == job_id:
                self.begun += 1
                self._now += 1
                self.most = max(self.most, self._now)
                assert self.free.wait(SECONDS)
                self._now -= 1
                if self.fault is not None:
                    raise self.fault
            write(taken, folder)

        monkeypatch.setattr(Snapshot, "write", blocking_write)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Of the job "slow"."""
    disk = Disk("slow", monkeypatch)
    yield disk
    disk.free.set()  # no thread stays behind


def bits(script: Script, job_id: str) -> tuple[bytes, ...]:
    folder = Path(script.of(job_id, Checkpointed)[-1].folder)
    return tuple((folder / name).read_bytes() for name in ADAPTER_FILES)


def test_a_neighbour_never_waits_for_a_snapshot_and_both_end_in_the_same_bits(
    base: LoadedBase, make: Callable[..., Path], disk: Disk, tmp_path: Path
) -> None:
    def let_go(report: Report) -> None:
        if isinstance(report, Left) and report.job_id == "beside":
            disk.free.set()

    script = Script(make("slow", LORA), make("beside", PROMPT), watch_report=let_go)
    run(base, script)
    ended = script.reports.index(script.of("beside", Left)[0])
    before = [one.step for one in script.reports[:ended] if isinstance(one, Stepped) and one.job_id == "slow"]
    assert before == [1, 2]  # at its second snapshot it holds still
    assert len(script.of("beside", Stepped)) == 8
    assert disk.most == 1
    assert [one.step for one in script.of("slow", Snapshotted)][:3] == [1, 2, 3]
    for job_id, tuning in (("slow", LORA), ("beside", PROMPT)):
        alone = seat(base, "alone", tuning, snapshot_steps=1)
        train(alone)
        assert bits(script, job_id) == adapter_of(alone, tmp_path / job_id)
        alone.leave()


@pytest.mark.parametrize("snapshot_steps", [1, 3])
def test_a_large_state_is_written_from_where_it_is_while_its_job_and_nobody_else_waits(
    base: LoadedBase,
    make: Callable[..., Path],
    disk: Disk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    snapshot_steps: int,
) -> None:
    monkeypatch.setattr(snapshot, "COPIED_BYTES", 0)

    def let_go(report: Report) -> None:
        if isinstance(report, Left) and report.job_id == "beside":
            disk.free.set()

    script = Script(
        make("slow", LORA, snapshot_steps=snapshot_steps), make("beside", PROMPT, snapshot_steps=100),
        watch_report=let_go,
    )  # fmt: skip
    run(base, script)
    ended = script.reports.index(script.of("beside", Left)[0])
    before = [one.step for one in script.reports[:ended] if isinstance(one, Stepped) and one.job_id == "slow"]
    assert before == list(range(1, snapshot_steps + 1))
    assert [one.step for one in script.of("slow", Snapshotted)] == (
        [*range(1, 8)] if snapshot_steps == 1 else [3, 4, 6]
    )
    alone = seat(base, "slow", LORA, snapshot_steps=snapshot_steps)
    held = {tensor.data_ptr() for tensor in alone.snapshot().tensors.values()}
    assert held >= {parameter.data_ptr() for parameter in alone._tuning.parameters().values()}
    while alone.step < 4:
        alone.train_step()
    alone.snapshot().write(tmp_path / "at once")
    train(alone)
    assert bits(script, "slow") == adapter_of(alone, tmp_path / "slow")
    alone.leave()
    (fourth,) = [one for one in script.of("slow", Snapshotted) if one.step == 4]
    written = (Path(fourth.folder) / "state.safetensors").read_bytes()
    assert written == (tmp_path / "at once" / "state.safetensors").read_bytes()


def test_a_job_may_be_paused_while_its_large_state_is_written(
    base: LoadedBase, make: Callable[..., Path], disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "COPIED_BYTES", 0)

    def watch(report: Report) -> None:
        if isinstance(report, Stepped) and report.job_id == "slow" and report.step == 1:
            script.put(Pause(job_id="slow"))
        if isinstance(report, Left) and report.job_id == "beside":
            disk.free.set()

    script = Script(make("slow", LORA), make("beside", PROMPT), watch_report=watch)
    run(base, script)
    kinds = [type(one).__name__ for one in script.of("slow", Checkpointed, Snapshotted, Paused)]
    assert kinds == ["Snapshotted", "Checkpointed", "Snapshotted", "Paused"]
    assert script.reports[-1] == Paused(job_id="slow", step=2)


def test_a_snapshot_comes_after_its_step_and_its_checkpoint_and_holds_what_was_then(
    base: LoadedBase, make: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make("job", LORA)
    script = Script(folder)
    run(base, script)
    for one in script.of("job", Snapshotted):
        before = script.reports[: script.reports.index(one)]
        assert one.step in [step.step for step in before if isinstance(step, Stepped)]
        assert one.step != 4 or [check.step for check in before if isinstance(check, Checkpointed)] == [4]
    alone = seat(base, "job", LORA, snapshot_steps=1)
    for _ in range(3):
        alone.train_step()
    alone.snapshot().write(tmp_path / "at once")
    alone.leave()
    (third,) = [one for one in script.of("job", Snapshotted) if one.step == 3]
    for name in ("state.json", "state.safetensors"):
        assert (Path(third.folder) / name).read_bytes() == (tmp_path / "at once" / name).read_bytes()


@pytest.mark.parametrize("snapshot", [True, False])
def test_who_leaves_has_left_only_when_nothing_is_being_written(
    base: LoadedBase, make: Callable[..., Path], disk: Disk, snapshot: bool
) -> None:
    def watch(report: Report) -> None:
        if isinstance(report, Stepped) and report.job_id == "slow" and report.step == 2:
            script.put(Leave(job_id="slow", snapshot=snapshot))
        if isinstance(report, Left) and report.job_id == "beside":
            assert not script.of("slow", Left)
            disk.free.set()

    script = Script(make("slow", LORA), make("beside", PROMPT), watch_report=watch)
    run(base, script)
    assert script.reports[-1] == Left(job_id="slow", finished=False)
    written = [one.step for one in script.of("slow", Snapshotted)]
    assert written == ([1, 2] if snapshot else [])  # those that nobody wants are not told


def test_a_paused_job_has_told_its_checkpoint_and_its_snapshot(
    base: LoadedBase, make: Callable[..., Path], disk: Disk
) -> None:
    def watch(report: Report) -> None:
        if isinstance(report, Stepped) and report.job_id == "slow" and report.step == 1:
            script.put(Pause(job_id="slow"))
        if isinstance(report, Left) and report.job_id == "beside":
            disk.free.set()

    script = Script(make("slow", LORA), make("beside", PROMPT), watch_report=watch)
    run(base, script)
    kinds = [type(one).__name__ for one in script.of("slow", Checkpointed, Snapshotted, Paused)]
    assert kinds == ["Checkpointed", "Snapshotted", "Snapshotted", "Paused"]
    assert script.reports[-1] == Paused(job_id="slow", step=2)


def test_who_finishes_does_not_tell_a_snapshot_that_nobody_needs(
    base: LoadedBase, make: Callable[..., Path], disk: Disk
) -> None:
    def watch(report: Report) -> None:
        match report:
            case Stepped(job_id="slow", step=4) | Checkpointed(last=True):
                disk.free.set()
            case Snapshotted():  # that of the epoch's end; the next one blocks until the job has ended
                disk.free.clear()

    script = Script(make("slow", LORA, snapshot_steps=7), watch_report=watch)
    run(base, script)
    assert [one.step for one in script.of("slow", Snapshotted)] == [4]
    assert script.of("slow", Left) == [Left(job_id="slow", finished=True)]


def test_on_a_full_disk_a_snapshot_is_left_out_and_the_job_goes_on(
    base: LoadedBase, make: Callable[..., Path], disk: Disk
) -> None:
    disk.fault = DiskFull()
    disk.free.set()
    script = Script(make("slow", LORA))
    run(base, script)
    assert disk.begun == 7 and not script.of("slow", Snapshotted)
    assert script.of("slow", Left) == [Left(job_id="slow", finished=True)]


def test_another_fault_of_the_writer_ends_the_process_on_the_jobs_account(
    make: Callable[..., Path], disk: Disk, tmp_path: Path
) -> None:
    base = load_base(make_tiny_base(tmp_path / "base"), torch.device("cpu"))  # no other test's: nobody leaves it
    disk.fault = OSError("the disk is on fire")
    disk.free.set()
    script = Script(make("slow", LORA), make("beside", PROMPT))
    with pytest.raises(OSError, match="on fire"):
        run(base, script)
    assert [one.job_id for one in script.reports if isinstance(one, Turn)][-1] == "slow"
