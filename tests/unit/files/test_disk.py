"""A full disk is one clear error, whoever meets it; other errors stay what they are."""

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from workers.files.disk import DiskFull, disk_errors
from workers.files.folders import whole_folder


def test_a_full_disk_is_disk_full() -> None:
    with pytest.raises(DiskFull, match="disk of its worker is full"), disk_errors():
        Path("/dev/full").write_bytes(b"x")


def test_safetensors_words_for_it_are_understood() -> None:
    with pytest.raises(DiskFull), disk_errors():
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(SafetensorError), disk_errors():
        raise SafetensorError("Error while deserializing header: header too small")


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors():
        (tmp_path / "missing" / "file").write_bytes(b"x")
    with pytest.raises(OSError, match="too many") as raised, disk_errors():
        raise OSError(errno.EMFILE, "too many open files")
    assert not isinstance(raised.value, DiskFull)


def test_a_folder_on_a_full_disk_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DiskFull), whole_folder(tmp_path / "snapshot") as folder:
        (folder / "first").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []
