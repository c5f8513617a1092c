"""The real trainer, which reports when another one is alive beside it: `python -m tests.faults.lone_trainer CONFIG`.

LUTHIER_FAULT_LONE    a file: locked while this process lives; gets a line `base id` at each start,
                      and a line `crowded` where another process holds the lock
"""

import fcntl
import os
import sys
from pathlib import Path

from workers.trainer.launch import TrainerConfig
from workers.trainer.process import loop as process

if __name__ == "__main__":
    journal = Path(os.environ["LUTHIER_FAULT_LONE"]).open("a", encoding="utf-8")  # noqa: SIM115  for this whole life
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        journal.write("crowded\n")
    journal.write(TrainerConfig.model_validate_json(sys.argv[1]).base.id + "\n")
    journal.flush()
    process.main()
