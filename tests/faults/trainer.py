"""The real trainer with faults in it, as a command line: `python -m tests.faults.trainer CONFIG`. For tests only.

It always writes noise to its stdout, as libraries do; the protocol must not notice. Its other faults:

    LUTHIER_FAULT_KILL_JOB    the process dies by SIGKILL in this job's turn ...
    LUTHIER_FAULT_KILL_STEP   ... at the start of this step (1 is the first)
    LUTHIER_FAULT_HANG_JOB    the process sleeps in this job's turn without end
    LUTHIER_FAULT_DIGEST      a file that gets the digest of the base's weights whenever a job has left
"""

import os
import signal
import time
from pathlib import Path

from workers.model.load import weights_digest
from workers.trainer.process import loop as process
from workers.trainer.process.loop import Stay, Trainer
from workers.trainer.process.slot import Slot, Step

KILL_JOB, KILL_STEP = os.environ.get("LUTHIER_FAULT_KILL_JOB"), int(os.environ.get("LUTHIER_FAULT_KILL_STEP", "1"))
HANG_JOB = os.environ.get("LUTHIER_FAULT_HANG_JOB")
DIGEST = os.environ.get("LUTHIER_FAULT_DIGEST")

train_step, say_end = Slot.train_step, Trainer._say_end


def faulty_train_step(slot: Slot) -> Step:
    os.write(1, b"noise from a library\n")
    if slot.spec.job_id == KILL_JOB and slot.step + 1 >= KILL_STEP:
        os.kill(os.getpid(), signal.SIGKILL)
    if slot.spec.job_id == HANG_JOB:
        time.sleep(3600)
    return train_step(slot)


def tattling_say_end(trainer: Trainer, job_id: str, stay: Stay) -> None:
    last = stay.ending is not None and stay.writing is None and set(trainer._stays) == {job_id}
    if DIGEST is not None and last:
        stay.slot.leave()
        Path(DIGEST).write_text(weights_digest(trainer._base.model))
    say_end(trainer, job_id, stay)


if __name__ == "__main__":
    Slot.train_step = faulty_train_step  # type: ignore[method-assign]
    Trainer._say_end = tattling_say_end  # type: ignore[method-assign]
    process.main()
