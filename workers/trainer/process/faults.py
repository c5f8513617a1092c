"""What fails only the job: running out of memory, found before it starts or later, and numbers that are none.

Any other error of torch ends the process.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from service.domain.errors import JobError
from service.domain.memory import DeviceMemory, MemoryNeed

_CPU_REFUSED = "can't allocate memory"  # torch raises a plain RuntimeError on the CPU


OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError, RuntimeError)  # those of which `ran_out` decides


def ran_out(error: BaseException) -> bool:
    """Whether it says that there is no memory left; then also frees what torch keeps of a GPU's."""
    refused = type(error) is RuntimeError and _CPU_REFUSED in str(error)
    if not refused and not isinstance(error, torch.OutOfMemoryError | MemoryError):
        return False
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return True


@contextmanager
def job_errors() -> Iterator[None]:
    """Raises JobError (`out_of_memory`) when the code inside runs out of memory; other errors are raised unchanged."""
    try:
        yield
    except OUT_OF_MEMORY as error:
        if not ran_out(error):
            raise
        raise JobError(
            "out_of_memory",
            "The job needs more memory than the trainer has. Try a smaller batch_size, shorter examples, or a smaller "
            "tuning.",
        ) from error


def check_room(parameter_bytes: int, device: torch.device) -> None:
    """Raises JobError (`out_of_memory`) when the tuning's training state does not fit into the memory that is free now.

    Activations are not counted: a job that passes may still run out of memory at a step.
    """
    needed, free = MemoryNeed.of(0, parameter_bytes, 0).training_bytes, _free_bytes(device)
    if needed > free:
        raise JobError(
            "out_of_memory",
            f"The tuning's parameters, their gradients and the optimizer's state need {needed} bytes; the trainer has "
            f"{free} left. Try a smaller tuning.",
        )


def device_memory(device: torch.device) -> DeviceMemory:
    """What there is and what is left now."""
    on_gpu = device.type == "cuda"
    total = torch.cuda.mem_get_info(device)[1] if on_gpu else psutil.virtual_memory().total
    return DeviceMemory(device.type, int(total), _free_bytes(device))


def check_finite(what: str, value: float, step: int) -> None:
    """Raises JobError (`training_diverged`) where `value`, measured at `step`, is no number any more."""
    if not math.isfinite(value):
        raise JobError(
            "training_diverged",
            f"The training diverged: the {what} became {value} at step {step}. "
            "Try a smaller learning_rate_multiplier, or look for unusual examples.",
            param="hyperparameters.learning_rate_multiplier",
        )


def _free_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch reuses it
    return int(torch.cuda.mem_get_info(device)[0]) + kept
