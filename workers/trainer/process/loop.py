"""The trainer's process: one base in memory, several jobs on it in turns.

`python -m workers.trainer.process.loop CONFIG`.

Gets commands and gives reports (`protocol`); sees no database, no bucket and no URL but the base's. A job's own faults
end that job; any other exception ends the process, and the parent charges the job whose turn was announced last.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import torch

from service.domain.errors import JobError
from service.settings import logs
from workers.data.tokenized import TokenizedDataset
from workers.files.disk import DiskFull
from workers.model.load import LoadedBase, choose_device, environment, load_base
from workers.trainer.launch import TrainerConfig
from workers.trainer.process.channel import Channel
from workers.trainer.process.slot import Slot, Step
from workers.trainer.process.turns import Turns
from workers.trainer.protocol import (
    Checkpointed,
    Failed,
    JobSpec,
    Leave,
    Left,
    Pause,
    Paused,
    Ready,
    Seat,
    Seated,
    Snapshotted,
    Stepped,
    Turn,
)

log = structlog.get_logger()


class Trainer:
    """The loop: obey what has come, give the next job one step, report."""

    def __init__(self, base: LoadedBase, turn_tokens: int, channel: Channel) -> None:
        self._base = base
        self._environment = environment(base.device)
        self._channel = channel
        self._turns = Turns(turn_tokens)
        self._slots: dict[str, Slot] = {}
        self._folders: dict[str, Path] = {}
        self._pausing: set[str] = set()
        self._snapshotted: dict[str, int] = {}  # the step that was snapshotted last
        self._announced: str | None = None

    def run(self) -> None:
        """Runs until the channel ends the process."""
        ready = Ready(revision=self._base.revision, hashes=self._base.hashes, environment=self._environment)
        self._channel.say(ready)
        self._channel.watch()
        while True:
            for command in self._channel.commands(wait=not self._slots):
                self._obey(command)
            job_id = self._turns.next()
            if job_id is not None:
                with self._on_account_of(job_id):
                    self._advance(job_id)

    def _obey(self, command: Seat | Leave | Pause) -> None:
        if isinstance(command, Seat):
            with self._on_account_of(command.job_id):
                self._seat(command.job_id, Path(command.folder))
        elif command.job_id not in self._slots:
            return  # it has ended by itself meanwhile
        elif isinstance(command, Pause):
            self._pausing.add(command.job_id)
        else:
            with self._on_account_of(command.job_id):
                self._leave(command.job_id, command.snapshot)

    @contextmanager
    def _on_account_of(self, job_id: str) -> Iterator[None]:
        """A crash inside is charged to the job; its own faults end it and nothing else."""
        if self._announced != job_id:
            self._channel.say(Turn(job_id=job_id))
            self._announced = job_id
        try:
            yield
        except JobError as error:
            self._remove(job_id)
            self._channel.say(Failed(job_id=job_id, code=error.code, message=error.message, param=error.param))

    def _seat(self, job_id: str, folder: Path) -> None:
        spec = JobSpec.model_validate_json((folder / "job.json").read_bytes())
        train = TokenizedDataset.load(folder / "train.safetensors")
        validation = folder / "valid.safetensors"
        valid = TokenizedDataset.load(validation) if validation.exists() else None
        slot = Slot(self._base, self._environment, spec, train, valid)
        self._slots[job_id], self._folders[job_id] = slot, folder
        difference = ""
        if (folder / "parent").exists():
            slot.continue_from(folder / "parent")
        if (folder / "resume").exists():
            difference = slot.restore(folder / "resume")
        self._turns.enter(job_id)
        self._channel.say(Seated(job_id=job_id, step=slot.step, total_steps=slot.total_steps, difference=difference))

    def _advance(self, job_id: str) -> None:
        """One step and what is due after it.

        The checkpoint comes before the snapshot of the same step: whoever resumes from that snapshot has seen it.
        """
        slot, pausing = self._slots[job_id], job_id in self._pausing
        if not slot.prepared:
            self._turns.charge(job_id, slot.prepare())
            return
        step = slot.train_step()
        self._turns.charge(job_id, step.cost_tokens)
        self._channel.say(
            Stepped(
                job_id=job_id,
                step=slot.step,
                trained_tokens=slot.trained_tokens,
                seconds=step.seconds,
                metrics=step.metrics,
            )
        )
        if slot.at_epoch_end or pausing:
            self._checkpoint(job_id, slot, step)
        if slot.finished:
            self._remove(job_id)
            self._channel.say(Left(job_id=job_id, finished=True))
        elif slot.at_epoch_end or pausing or slot.step % slot.spec.snapshot_steps == 0:
            self._snapshot(job_id, slot)
        if pausing and not slot.finished:
            self._remove(job_id)
            self._channel.say(Paused(job_id=job_id, step=slot.step))

    def _leave(self, job_id: str, snapshot: bool) -> None:
        if snapshot and self._snapshotted.get(job_id) != self._slots[job_id].step:  # else it would be the same bits
            self._snapshot(job_id, self._slots[job_id])
        self._remove(job_id)
        self._channel.say(Left(job_id=job_id, finished=False))

    def _checkpoint(self, job_id: str, slot: Slot, step: Step) -> None:
        """An adapter that changes nothing is never published: at the end it fails the job, before it is passed over."""
        if slot.finished:
            slot.check_changed()
        elif not slot.changed:
            return
        folder = self._folders[job_id] / "checkpoints" / f"step-{slot.step}"
        slot.save_adapter(folder)
        self._channel.say(
            Checkpointed(
                job_id=job_id,
                step=slot.step,
                folder=str(folder),
                metrics=step.metrics,
                last=slot.finished,
                sample=slot.sample() if slot.finished else [],
            )
        )

    def _snapshot(self, job_id: str, slot: Slot) -> None:
        """On a full disk it is left out: whoever resumes goes on from the one before, to the same bits."""
        folder = self._folders[job_id] / "snapshots" / f"step-{slot.step}"
        try:
            slot.snapshot(folder)
        except DiskFull:
            log.warning("snapshot.disk_full", job_id=job_id, step=slot.step)
            return
        self._snapshotted[job_id] = slot.step
        self._channel.say(Snapshotted(job_id=job_id, step=slot.step, folder=str(folder)))

    def _remove(self, job_id: str) -> None:
        self._turns.leave(job_id)
        self._folders.pop(job_id, None)
        self._snapshotted.pop(job_id, None)
        self._pausing.discard(job_id)
        slot = self._slots.pop(job_id, None)
        if slot is not None:
            slot.leave()


def main() -> None:
    """Loads the base and serves the parent until it is gone."""
    config = TrainerConfig.model_validate_json(sys.argv[1])
    channel = Channel(config.lease_seconds)
    logs.configure("info")
    _be_deterministic(config.threads)
    base = load_base(config.base, choose_device(config.device))
    Trainer(base, config.turn_tokens, channel).run()


def _be_deterministic(threads: int) -> None:
    """The same work gives the same bits; for cuBLAS the environment says so (`launch`)."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


if __name__ == "__main__":
    main()
