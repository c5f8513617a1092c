"""Archives of strangers: two files of an adapter come out of them, and nothing else."""

import io
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from service.domain.errors import JobError
from service.domain.model_import import CONFIG_LIMIT_BYTES
from workers.jobs.sent_adapter import unpack

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
GOOD = {CONFIG: b"{}", WEIGHTS: b"weights"}
LIMIT_BYTES = 100_000


def zipped(entries: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda entry: None) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            change(entry)
            archive.writestr(entry, content)
    return sink.getvalue()


def link(entry: zipfile.ZipInfo) -> None:
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16


def encrypted(content: bytes) -> bytes:
    """As if every entry were: the flag is in both headers of each."""
    changed = bytearray(content)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = changed.find(mark)
        while at >= 0:
            changed[at + place] |= 1
            at = changed.find(mark, at + 1)
    return bytes(changed)


def lying(content: bytes) -> bytes:
    """The directory says that every file unpacks to four bytes."""
    changed = bytearray(content)
    at = changed.find(b"PK\x01\x02")
    while at >= 0:
        changed[at + 24 : at + 28] = struct.pack("<L", 4)
        at = changed.find(b"PK\x01\x02", at + 1)
    return bytes(changed)


def with_zip64_records(content: bytes, entries: int, directory_bytes: int, at: int) -> bytes:
    """The archive with a ZIP64 end record and its locator before the ordinary end record: APPNOTE.TXT, 4.3.14."""
    end = content.rindex(b"PK\x05\x06")
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, directory_bytes, at)
    return content[:end] + record + struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1) + content[end:]


def of_many_entries(entries: int, said: int, said_bytes: int) -> bytes:
    """A directory of that many empty files, and an ordinary end record that says something else."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, said, said, said_bytes, 0, 0)
    return (entry + b"a") * entries + end


BOMB = b"\0" * (10 * LIMIT_BYTES)
HOSTILE = {
    "no archive": (b"x" * 100, "no zip archive"),
    "empty": (b"", "no zip archive"),
    "cut off": (zipped(GOOD)[:-30], "no zip archive"),
    "a directory of nothing": (b"PK\x05\x06" + b"\xff" * 18, "no zip archive"),
    "damaged": (zipped(GOOD).replace(b"PK\x03\x04", b"PK\x03\x05"), "no zip archive"),
    "bomb": (zipped({CONFIG: b"{}", WEIGHTS: BOMB}), "when it is unpacked"),
    "bomb of a config": (zipped({CONFIG: b"\0" * 2_000_000, WEIGHTS: b""}), "when it is unpacked"),
    "bomb that lies": (lying(zipped({CONFIG: b"{}", WEIGHTS: BOMB})), "archive cannot be imported"),
    "many entries": (zipped(GOOD | {f"{number}/README.md": b"" for number in range(70)}), "entries"),
    "thousands of entries": (zipped({f"{number}" * 9: b"" for number in range(3000)}), "entries"),
    "above": (zipped({f"../{CONFIG}": b"{}", WEIGHTS: b""}), "out of its folder"),
    "far above": (zipped(GOOD | {"a/../../../etc/README.md": b""}), "out of its folder"),
    "absolute": (zipped({f"/etc/{CONFIG}": b"{}", WEIGHTS: b""}), "out of its folder"),
    "a folder above": (zipped(GOOD | {"../x/": b""}), "out of its folder"),
    "drive": (zipped({f"C:{CONFIG}": b"{}", WEIGHTS: b""}), "out of its folder"),
    "backslashes": (zipped({f"..\\{CONFIG}": b"{}", WEIGHTS: b""}), ""),
    "links": (zipped(GOOD, link), "link"),
    "encrypted": (encrypted(zipped(GOOD)), "encrypted"),
    "a pickle beside": (zipped(GOOD | {"training_args.bin": b""}), "run a program"),
    "a pickle alone": (zipped({CONFIG: b"{}", "adapter_model.bin": b""}), "run a program"),
    "a program": (zipped(GOOD | {"setup.py": b""}), "no file of an adapter"),
    "twice": (zipped(GOOD | {f"a/{CONFIG}": b"{}"}), "twice"),
    "two folders": (zipped({f"a/{CONFIG}": b"{}", f"b/{WEIGHTS}": b""}), "several folders"),
    "no weights": (zipped({CONFIG: b"{}"}), f"no {WEIGHTS}"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_each_is_refused_with_a_sentence_and_nothing_leaves_the_folder(tmp_path: Path, kind: str) -> None:
    content, reason = HOSTILE[kind]
    (tmp_path / "sent.zip").write_bytes(content)
    (tmp_path / "folder").mkdir()
    with pytest.raises(JobError, match=r"^The archive cannot be imported: ") as refusal:
        unpack({"adapter.zip": tmp_path / "sent.zip"}, tmp_path / "folder", LIMIT_BYTES)
    assert reason in refusal.value.message
    assert refusal.value.code == "invalid_adapter"
    found = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "sent.zip"]
    assert all(path.parent == tmp_path / "folder" and not path.is_symlink() for path in found)
    assert sum(path.stat().st_size for path in found) <= LIMIT_BYTES + CONFIG_LIMIT_BYTES


MANY = 200_000
DIRECTORY_BYTES = MANY * 47
HUGE = {
    "said by a ZIP64 record": with_zip64_records(of_many_entries(MANY, 2, 100), MANY, DIRECTORY_BYTES, 0),
    "said by a ZIP64 record with a false count": with_zip64_records(
        of_many_entries(MANY, 2, 100), 2, DIRECTORY_BYTES, 0
    ),
    "said by the end record": of_many_entries(MANY, 65_535, DIRECTORY_BYTES),
    "said by the end record with a false count": of_many_entries(MANY, 2, DIRECTORY_BYTES),
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_huge_directory_is_refused_before_it_is_read_into_memory(tmp_path: Path, kind: str) -> None:
    (tmp_path / "sent.zip").write_bytes(HUGE[kind])
    tracemalloc.start()
    try:
        with pytest.raises(JobError, match="more than 64 entries"):
            unpack({"adapter.zip": tmp_path / "sent.zip"}, tmp_path, LIMIT_BYTES)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_an_archive_with_zip64_records_that_tell_the_truth_is_unpacked(tmp_path: Path) -> None:
    content = zipped(GOOD)
    at = content.index(b"PK\x01\x02")
    whole = with_zip64_records(content, len(GOOD), content.rindex(b"PK\x05\x06") - at, at)
    (tmp_path / "sent.zip").write_bytes(whole)
    (tmp_path / "out").mkdir()
    unpack({"adapter.zip": tmp_path / "sent.zip"}, tmp_path / "out", LIMIT_BYTES)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == GOOD


def test_a_long_comment_is_no_directory(tmp_path: Path) -> None:
    sink = io.BytesIO(zipped(GOOD))
    with zipfile.ZipFile(sink, "a") as archive:
        archive.comment = b"c" * 65_535
    (tmp_path / "sent.zip").write_bytes(sink.getvalue())
    (tmp_path / "out").mkdir()
    unpack({"adapter.zip": tmp_path / "sent.zip"}, tmp_path / "out", LIMIT_BYTES)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == GOOD


@pytest.mark.parametrize("folder", ["", "adapter/", "a/b/"])
def test_an_adapter_comes_out_as_it_was_with_what_usually_lies_beside_it(tmp_path: Path, folder: str) -> None:
    beside = {"README.md": b"about", "tokenizer.json": b"{}", "manifest.json": b"{}"}
    entries = {f"{folder}{name}": content for name, content in (GOOD | beside).items()}
    (tmp_path / "sent.zip").write_bytes(zipped(({folder: b""} if folder else {}) | entries))
    (tmp_path / "out").mkdir()
    unpack({"adapter.zip": tmp_path / "sent.zip"}, tmp_path / "out", LIMIT_BYTES)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == GOOD
