"""Which of torch's errors are the job's own fault. Everything else is the trainer's and ends the process."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from service.domain.errors import JobError

_CPU_REFUSED = "can't allocate memory"  # torch raises a plain RuntimeError on the CPU


@contextmanager
def job_errors() -> Iterator[None]:
    """Turns running out of memory inside into a JobError (`out_of_memory`)."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if type(error) is RuntimeError and _CPU_REFUSED not in str(error):
            raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise JobError(
            "out_of_memory",
            "The job needs more memory than the trainer has. Try a smaller batch_size, shorter examples, or a smaller "
            "tuning.",
        ) from error
