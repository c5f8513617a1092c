"""Folders that are whole or absent, also after a power cut: temporary name, fsync, rename."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.files.disk import disk_errors


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write files into; it becomes `target` at the end, replacing an older one.

    Raises DiskFull, with nothing left behind.
    """
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process
    try:
        with disk_errors():
            partial.mkdir(parents=True)
            yield partial
            for path in partial.iterdir():
                _flush(path)
            _flush(partial)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            _flush(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
