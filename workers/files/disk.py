"""A full disk: the one error of every write below the scratch folder.

Python raises ENOSPC; safetensors has the error number in its message only.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from service.domain.errors import JobError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(JobError):
    """A worker's disk has no room for a job's files."""

    def __init__(self) -> None:
        super().__init__(
            "disk_full",
            "The job was stopped because the disk of its worker is full. None of your data is lost: "
            "ask the operator to free space in the worker's scratch folder, then create the job again.",
        )


@contextmanager
def disk_errors() -> Iterator[None]:
    """Around whatever writes to scratch: a full disk becomes DiskFull, any other error is raised unchanged."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFull from error
    except SafetensorError as error:
        if not any(f"os error {number}" in str(error) for number in _FULL):
            raise
        raise DiskFull from error
