"""The trainer's process: one base in memory, several jobs on it in turns.

`python -m workers.trainer.process.loop CONFIG`.

Reads commands and writes reports (`protocol`); uses no database, no bucket and no URL but the base's. A JobError ends
its job; any other exception ends the process, and the parent charges the job whose turn was announced last.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch

from service.domain.errors import JobError
from service.domain.job import Metrics
from service.processes.cpus import available_cpus
from service.settings import logs
from workers.data.tokenized import TokenizedDataset
from workers.files.disk import DiskFull, disk_errors
from workers.model.footprint import loaded_footprint
from workers.model.load import BaseUnusable, LoadedBase, choose_device, environment, load_or_explain
from workers.model.nf4 import num_parameters
from workers.trainer.launch import TrainerConfig
from workers.trainer.process.channel import Channel, Order
from workers.trainer.process.faults import device_memory
from workers.trainer.process.plan import LIMIT_TOKENS
from workers.trainer.process.slot import Phase, Slot, Step
from workers.trainer.process.snapshot import SnapshotWrite
from workers.trainer.process.threads import usual_threads, usual_trainers
from workers.trainer.process.turns import Turns
from workers.trainer.protocol import (
    Checkpointed,
    Chosen,
    Conversion,
    Failed,
    JobSpec,
    Leave,
    Left,
    Pause,
    Paused,
    Ready,
    Reward,
    RolledOut,
    RolloutRow,
    RolloutRows,
    Seat,
    Seated,
    Snapshotted,
    Stepped,
    Turn,
)

log = structlog.get_logger()


@dataclass
class Stay:
    """One job's stay in the process. Used by the loop only."""

    slot: Slot
    folder: Path
    pausing: bool = False
    writing: SnapshotWrite | None = None  # at most one at a time
    due: bool = False  # a snapshot of the slot's step, once the one before is written; no turn until then
    snapshotted: int | None = None  # the step of the last snapshot that was begun
    ending: Left | Paused | Failed | None = None  # its last report, sent when nothing is being written any more
    discarding: bool = False  # the snapshot that is being written is not reported


class Trainer:
    """The loop: carry out the commands, give the next job one turn, report."""

    def __init__(self, base: LoadedBase, turn_tokens: int, channel: Channel) -> None:
        self._base = base
        self._environment = environment(base.device, base.quantization)
        self._channel = channel
        self._turns = Turns(turn_tokens)
        self._stays: dict[str, Stay] = {}
        self._announced: str | None = None

    def run(self) -> None:
        """Runs until the channel ends the process."""
        memory = device_memory(self._base.device)
        ready = Ready(
            revision=self._base.revision,
            hashes=self._base.hashes,
            environment=self._environment,
            memory=memory,
            trainers=self._useful_trainers(memory.free_bytes),
        )
        self._channel.say(ready)
        self._channel.watch()
        while True:
            for command in self._channel.commands(wait=self._turns.idle):
                self._obey(command)
            for job_id, stay in list(self._stays.items()):
                if stay.writing is not None and stay.writing.done:
                    self._written(job_id, stay, stay.writing)
            turn = self._turns.next()
            if turn is not None:
                with self._on_account_of(turn):
                    self._advance(turn, self._stays[turn])

    def _useful_trainers(self, free_bytes: int) -> int:
        if self._base.device.type != "cpu":
            return 1
        size = loaded_footprint(self._base.model)
        copy_bytes = size.weights_bytes + size.activation_bytes(LIMIT_TOKENS)
        return usual_trainers(available_cpus(), torch.get_num_threads(), copy_bytes, free_bytes)

    def _obey(self, command: Order) -> None:
        job_id = command.job_id
        if isinstance(command, Seat):
            with self._on_account_of(job_id):
                self._seat(job_id, Path(command.folder))
            return
        stay = self._stays.get(job_id)
        if stay is None or stay.ending is not None:
            return  # the job has ended meanwhile
        match command:
            case Pause():
                stay.pausing = True
            case Leave():
                with self._on_account_of(job_id):
                    self._end(job_id, stay, Left(job_id=job_id, finished=False), snapshot=command.snapshot)
            case Reward():
                with self._on_account_of(job_id):
                    self._reward(job_id, stay.slot, command)

    @contextmanager
    def _on_account_of(self, job_id: str) -> Iterator[None]:
        """A crash inside is charged to the job; a JobError ends the job and nothing else."""
        if self._announced != job_id:
            self._channel.say(Turn(job_id=job_id))
            self._announced = job_id
        try:
            yield
        except JobError as error:
            failed = Failed(job_id=job_id, code=error.code, message=error.message, param=error.param)
            stay = self._stays.get(job_id)
            if stay is None:  # it was not seated
                self._channel.say(failed)
            else:
                self._end(job_id, stay, failed, snapshot=False)

    def _seat(self, job_id: str, folder: Path) -> None:
        spec = JobSpec.model_validate_json((folder / "job.json").read_bytes())
        train = TokenizedDataset.load(folder / "train.safetensors")
        validation = folder / "valid.safetensors"
        valid = TokenizedDataset.load(validation) if validation.exists() else None
        slot = Slot(self._base, self._environment, spec, train, valid)
        self._stays[job_id] = Stay(slot, folder)
        difference = ""
        if (folder / "parent").exists():
            slot.continue_from(folder / "parent")
        if (folder / "resume").exists():
            difference = slot.restore(folder / "resume")
        if slot.unpacked_because:
            log.info("job.rows_padded", job_id=job_id, reason=slot.unpacked_because)
        self._turns.enter(job_id)
        self._channel.say(Seated(job_id=job_id, step=slot.step, total_steps=slot.total_steps, difference=difference))

    def _advance(self, job_id: str, stay: Stay) -> None:
        """One turn of the slot's next phase."""
        match stay.slot.phase:
            case Phase.PREPARE:
                self._turns.charge(job_id, stay.slot.prepare())
            case Phase.ROLL_OUT:
                self._turns.charge(job_id, stay.slot.roll_out())
                self._ask(job_id, stay)
            case Phase.UPDATE:
                self._step(job_id, stay)
            case Phase.WAIT:
                raise AssertionError("a job that waits has no turn")

    def _step(self, job_id: str, stay: Stay) -> None:
        """One optimizer step and what is due after it.

        The checkpoint is reported before the snapshot of the same step: a job resumed from there does not repeat it.
        """
        slot, limit_tokens = stay.slot, stay.slot.limit_tokens
        step = slot.train_step()
        cut = slot.limit_tokens != limit_tokens  # what follows has other last bits than before: stored at once
        if cut:
            log.warning("job.step_cut", job_id=job_id, step=slot.step, tokens=slot.limit_tokens)
        self._turns.charge(job_id, step.cost_tokens)
        self._channel.say(
            Stepped(
                job_id=job_id,
                step=slot.step,
                trained_tokens=slot.trained_tokens,
                seconds=step.seconds,
                metrics=step.metrics,
                pace={
                    "learning_rate": step.learning_rate,
                    "grad_norm": step.grad_norm,
                    "tokens_per_second": round(step.cost_tokens / step.seconds, 1),
                },
            )
        )
        if slot.at_epoch_end or stay.pausing:
            self._checkpoint(job_id, stay, step)
        if slot.finished:
            self._end(job_id, stay, Left(job_id=job_id, finished=True), snapshot=False)
        elif stay.pausing:
            self._end(job_id, stay, Paused(job_id=job_id, step=slot.step), snapshot=True)
        elif cut or slot.at_epoch_end or slot.step % slot.spec.snapshot_steps == 0:
            self._snapshot(job_id, stay)

    def _ask(self, job_id: str, stay: Stay) -> None:
        """Reports the roll-out if the parent has to reward it; the job takes no turn until the rewards come."""
        if stay.slot.phase is not Phase.WAIT:
            return
        file = stay.folder / "rollouts" / f"step-{stay.slot.step}.json"
        rows = [RolloutRow(prompt=list(row.prompt), completion=list(row.completion)) for row in stay.slot.rolled_out]
        with disk_errors():
            file.parent.mkdir(exist_ok=True)
            file.write_text(RolloutRows(rows=rows).model_dump_json(), encoding="utf-8")
        self._turns.hold(job_id)
        self._channel.say(RolledOut(job_id=job_id, step=stay.slot.step, file=str(file)))

    def _reward(self, job_id: str, slot: Slot, command: Reward) -> None:
        if slot.phase is Phase.WAIT and slot.step == command.step:  # else it belongs to an earlier stay
            slot.reward(command.rewards)
            self._turns.release(job_id)

    def _checkpoint(self, job_id: str, stay: Stay, step: Step) -> None:
        """An adapter that changes no answer is never published: it is skipped; as the result it fails the job.

        The result may be an earlier step's: then the last step's is a checkpoint like any other, reported before it.
        """
        slot = stay.slot
        chosen = slot.chosen() if slot.finished else None
        if slot.finished and (chosen is None or chosen.step == slot.step):
            self._result(job_id, stay, slot.step, step.metrics, chosen)
            return
        if slot.changed and (stay.pausing or slot.has_effect()):  # a pause promises a checkpoint
            folder, conversion = self._save(stay, f"step-{slot.step}")
            self._channel.say(
                Checkpointed(
                    job_id=job_id,
                    step=slot.step,
                    folder=str(folder),
                    metrics=step.metrics,
                    last=False,
                    conversion=conversion,
                )
            )
        if chosen is not None:
            evaluation = slot.choose()
            self._result(job_id, stay, evaluation.step, evaluation.metrics, chosen)

    def _result(self, job_id: str, stay: Stay, step: int, metrics: Metrics, chosen: Chosen | None) -> None:
        slot = stay.slot
        slot.check_changed()
        name = f"step-{step}" if step == slot.step else f"best-{step}"
        folder, conversion = self._save(stay, name, slot.tables())
        result = Checkpointed(
            job_id=job_id,
            step=step,
            folder=str(folder),
            metrics=metrics,
            last=True,
            chosen=chosen,
            forgetting=slot.forgetting(),
            conversion=conversion,
        )
        self._channel.say(result.model_copy(update=self._agreement(slot, folder, conversion)))

    @staticmethod
    def _agreement(slot: Slot, folder: Path, conversion: Conversion | None) -> dict[str, object]:
        """The result's rows for an engine; of another form its own, with what that costs."""
        if conversion is None:
            return {"agreement": slot.agreement_rows(), "head_agreement": slot.head_rows()}
        if not conversion.enough:
            return {}  # the parent refuses it
        with slot.serving(folder) as served:
            rows = {"agreement": slot.agreement_rows(), "head_agreement": slot.head_rows()}
            return {**rows, "conversion": served.measured(conversion)}

    def _save(self, stay: Stay, name: str, tables: Mapping[str, str] | None = None) -> tuple[Path, Conversion | None]:
        folder = stay.folder / "checkpoints" / name
        return folder, stay.slot.save_adapter(folder, tables)

    def _snapshot(self, job_id: str, stay: Stay) -> None:
        """Writes the state in the background: a copy, or a large one itself, which then must not change meanwhile.

        A job writes one snapshot at a time.
        """
        if stay.writing is not None:
            stay.due = True
            self._turns.hold(job_id)
            return
        stay.snapshotted = stay.slot.step
        folder = stay.folder / "snapshots" / f"step-{stay.slot.step}"
        stay.writing = SnapshotWrite(stay.slot.snapshot(), folder, self._channel.wake)
        if not stay.writing.copied:
            self._turns.hold(job_id)

    def _written(self, job_id: str, stay: Stay, written: SnapshotWrite) -> None:
        """On a full disk the snapshot is skipped: a resumed job continues from the one before, to the same bits."""
        stay.writing = None
        try:
            written.check()
        except DiskFull:
            stay.snapshotted = None
            log.warning("snapshot.disk_full", job_id=job_id, step=written.step)
        except BaseException:
            with self._on_account_of(job_id):
                raise
        else:
            if not stay.discarding:
                self._channel.say(Snapshotted(job_id=job_id, step=written.step, folder=str(written.folder)))
        held = stay.due or not written.copied
        if stay.due:
            stay.due = False
            self._snapshot(job_id, stay)
        if held and stay.ending is None and (stay.writing is None or stay.writing.copied):
            self._turns.release(job_id)
        self._say_end(job_id, stay)

    def _end(self, job_id: str, stay: Stay, last: Left | Paused | Failed, *, snapshot: bool) -> None:
        """No more turns. The last report comes when nothing is being written: the parent may then delete the folder."""
        self._turns.leave(job_id)
        stay.ending = last
        stay.due = False
        if not snapshot:
            stay.discarding = True
            stay.slot.leave()
        elif stay.snapshotted != stay.slot.step:  # else that snapshot exists, or is being written
            self._snapshot(job_id, stay)
        self._say_end(job_id, stay)

    def _say_end(self, job_id: str, stay: Stay) -> None:
        if stay.ending is not None and stay.writing is None and self._stays.pop(job_id, None) is not None:
            stay.slot.leave()
            self._channel.say(stay.ending)


def main() -> None:
    """Loads the base and trains the parent's jobs until the parent is gone."""
    config = TrainerConfig.model_validate_json(sys.argv[1])
    channel = Channel(config.lease_seconds)
    logs.configure("info")
    torch.use_deterministic_algorithms(True)  # cuBLAS gets its setting from the environment (`launch`)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it
    try:
        base = load_or_explain(config.base, choose_device(config.device))
    except BaseUnusable as error:
        sys.exit(f"trainer: {error}")
    torch.set_num_threads(config.threads or usual_threads(num_parameters(base.model), available_cpus()))
    Trainer(base, config.turn_tokens, channel).run()


if __name__ == "__main__":
    main()
