"""The real trainer, which keeps a journal of whose step is next: `python -m tests.faults.journal_trainer CONFIG`.

LUTHIER_FAULT_JOURNAL         a file: gets a line `step JOB NUMBER` for each step, `seated JOB` and `left JOB`
LUTHIER_FAULT_STEP_SECONDS    how long each step takes at least: a step of a tiny base is shorter than a message
"""

import os
import time
from pathlib import Path

from workers.trainer.process import loop as process
from workers.trainer.process.loop import Trainer
from workers.trainer.process.slot import Slot, Step

JOURNAL = Path(os.environ["LUTHIER_FAULT_JOURNAL"]).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115
STEP_SECONDS = float(os.environ.get("LUTHIER_FAULT_STEP_SECONDS", "0"))
train_step, seat, leave = Slot.train_step, Trainer._seat, Slot.leave


def told_step(slot: Slot) -> Step:
    done = train_step(slot)
    time.sleep(STEP_SECONDS)
    JOURNAL.write(f"step {slot.spec.job_id} {slot.step}\n")
    return done


def told_seat(trainer: Trainer, job_id: str, folder: Path) -> None:
    seat(trainer, job_id, folder)
    JOURNAL.write(f"seated {job_id}\n")


def told_leave(slot: Slot) -> None:
    """Written once, though `leave` may be called twice."""
    leave(slot)
    if not getattr(slot, "told", False):
        JOURNAL.write(f"left {slot.spec.job_id}\n")
        slot.told = True  # type: ignore[attr-defined]


if __name__ == "__main__":
    Slot.train_step = told_step  # type: ignore[method-assign]
    Trainer._seat = told_seat  # type: ignore[method-assign]
    Slot.leave = told_leave  # type: ignore[method-assign]
    process.main()
