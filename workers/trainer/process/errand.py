"""What every errand's process does around its task: the order is read, the base loaded, and the result written.

The base is loaded on the CPU, since the trainer and the engine have the other device's memory.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from service.domain.errors import JobError
from service.processes.cpus import available_cpus
from service.processes.parent import hear_parent, leave_signals_to_parent
from workers.files.disk import disk_errors
from workers.model.load import BaseUnusable, LoadedBase, load_or_explain
from workers.model.nf4 import num_parameters
from workers.trainer.errands import ORDER, RESULT, Order, Refusal, Result
from workers.trainer.launch import EXIT_PARENT_GONE
from workers.trainer.process.threads import usual_threads

T = TypeVar("T", bound=Order)
R = TypeVar("R", bound=Result)


def carry_out(order: type[T], task: Callable[[T, Path], Result]) -> None:
    """Entry of a process: `python -m MODULE FOLDER`."""
    leave_signals_to_parent()  # by itself its end would count as a crash
    stdin = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  read until the end of this process
    hear_parent(stdin, lambda _line: None, lambda: os._exit(EXIT_PARENT_GONE))
    folder = Path(sys.argv[1])
    found = task(order.model_validate_json((folder / ORDER).read_bytes()), folder)
    (folder / RESULT).write_text(found.model_dump_json(), encoding="utf-8")


def result_of(kind: type[R], task: Callable[[], R]) -> R:
    """What the task returns, or in its place the JobError or BaseUnusable that it raises."""
    try:
        with disk_errors():
            return task()
    except BaseUnusable as error:
        return kind(base_unusable=str(error))
    except JobError as error:
        return kind(refusal=Refusal(code=error.code, message=error.message, param=error.param))


def loaded_base(order: Order) -> LoadedBase:
    """The base, and as many threads as it takes. Raises BaseUnusable."""
    loaded = load_or_explain(order.base, torch.device("cpu"))
    torch.set_num_threads(order.threads or usual_threads(num_parameters(loaded.model), available_cpus()))
    return loaded
