"""Large files in parts: how a file is cut, and a journal by which an upload that was interrupted is continued.

The journal is a small file in the user's cache: the upload's id and the ids of the parts that the service has. It
belongs to one service and one file as it was (path, bytes, time of change), so a file that changed begins again.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Optional

from luthier.errors import InvalidArgumentError

PART_BYTES = 16 * 1024 * 1024  # the service accepts 64 MiB
PARTS_LIMIT = 10_000
LARGE_BYTES = 32 * 1024 * 1024  # from here on `tune` uploads in parts
PARALLEL = 4

OnProgress = Callable[[int, int], None]  # bytes that the service has, bytes of the file


@dataclass(frozen=True)
class Part:
    """A stretch of the file."""

    number: int
    start: int
    length: int


@dataclass
class Journal:
    """What the service has of one file; written after every part."""

    path: Path
    upload_id: Optional[str] = None
    part_ids: dict[int, str] = field(default_factory=dict)

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({"upload_id": self.upload_id, "part_ids": self.part_ids}), encoding="utf-8")
        part.replace(self.path)

    def begin(self, upload_id: str) -> None:
        self.upload_id, self.part_ids = upload_id, {}
        self.save()

    def add(self, part: Part, id: str) -> None:
        self.part_ids[part.number] = id
        self.save()

    def forget(self) -> None:
        self.upload_id, self.part_ids = None, {}
        self.path.unlink(missing_ok=True)

    def ordered(self, parts: list[Part]) -> list[str]:
        return [self.part_ids[part.number] for part in parts]

    def missing(self, parts: list[Part]) -> list[Part]:
        return [part for part in parts if part.number not in self.part_ids]

    def bytes_of(self, parts: list[Part]) -> int:
        return sum(part.length for part in parts if part.number in self.part_ids)


def parts_of(length: int, part_bytes: int) -> list[Part]:
    """A file's stretches in order. Raises InvalidArgumentError for parts that would be too many or empty."""
    if part_bytes < 1 or length < 1 or -(-length // part_bytes) > PARTS_LIMIT:
        raise InvalidArgumentError(f"{length} bytes in parts of {part_bytes} are not 1 to {PARTS_LIMIT} parts.")
    return [
        Part(number, start, min(part_bytes, length - start))
        for number, start in enumerate(range(0, length, part_bytes))
    ]


def journal_of(file: Path, url: str, part_bytes: int, purpose: str, folder: Path) -> Journal:
    """The journal of an upload of `file`, with what was sent before."""
    stat = file.stat()
    what = json.dumps([url, str(file.resolve()), stat.st_size, stat.st_mtime_ns, part_bytes, purpose])
    journal = Journal(folder / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.json")
    try:
        found = json.loads(journal.path.read_text(encoding="utf-8"))
        journal.upload_id = found["upload_id"]
        journal.part_ids = {int(number): str(id) for number, id in found["part_ids"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        journal.upload_id, journal.part_ids = None, {}
    return journal


def read_part(file: Path, part: Part) -> bytes:
    with file.open("rb") as opened:
        return _exactly(opened, part)


def _exactly(opened: IO[bytes], part: Part) -> bytes:
    opened.seek(part.start)
    content = opened.read(part.length)
    if len(content) != part.length:
        raise ValueError("The file became shorter while it was uploaded.")
    return content
