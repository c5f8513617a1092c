"""A worker's disk that is full: the one error that every write below the scratch folder may end in.

Knows files, no jobs and no tensors. Python says ENOSPC; safetensors says it in words only.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from service.domain.errors import JobError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(JobError):
    """There is no room for what a job needs on its worker."""

    def __init__(self) -> None:
        super().__init__(
            "disk_full",
            "The job was stopped because the disk of its worker is full. Nothing of your data is lost: "
            "ask the operator to make room in the worker's scratch folder, then create the job again.",
        )


@contextmanager
def disk_errors() -> Iterator[None]:
    """Around whatever writes to scratch: a full disk becomes DiskFull, any other error stays what it is."""
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
