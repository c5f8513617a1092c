"""Whether a training file holds JSON lines, found out while its bytes stream past on their way into storage.

Says of a line what a job's validation says before it looks at the row, in the same words and with nothing of its text.
Which format rows have, and keys that are there twice, is left to the job, for which a file with problems is not an
error before its own check. Holds one line up to the limit, the first two lines, and the chunk that it is given.
"""

from service.recipes.foreign_files import foreign_file
from service.recipes.json_lines import (
    blank_lines,
    is_blank,
    is_plainly_an_object,
    longer_than,
    read_object,
    without_cr,
)

PROBLEMS_SHOWN = 20
PROBLEMS_COUNTED = 10_000  # after which no further line is looked at
BLANK_COUNTED = 100_000  # as well: a file of line feeds would take minutes
HEAD_LINES = 2  # by which `foreign_file` decides


class UploadCheck:
    """One pass over one file: `feed` with its bytes in order, then `finish` once. Not for two threads at a time."""

    def __init__(self, row_limit_bytes: int) -> None:
        self._row_limit_bytes = row_limit_bytes
        self._kept_bytes = row_limit_bytes + 2  # of a line: one shows that it is too long, one may be its CR
        self._begun = bytearray()  # the line whose end has not come
        self._head: list[bytes] | None = []  # the first lines, until it is known what the file is
        self._foreign: str | None = None
        self._number = 0
        self._blank_since: int | None = None
        self._num_blank = 0
        self._num_problems = 0
        self._shown: list[str] = []

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes, which may end anywhere."""
        if self._is_decided():
            return
        first = chunk.find(b"\n")
        if first < 0:
            self._begun += chunk[: self._kept_bytes - len(self._begun)]
            return
        self._begun += chunk[: min(first, self._kept_bytes - len(self._begun))]
        self._end_line(self._begun)
        self._begun.clear()
        last = chunk.rfind(b"\n")
        if not self._is_decided():
            self._whole_lines(chunk, first + 1, last)
        self._begun += chunk[last + 1 : last + 1 + self._kept_bytes]

    def finish(self) -> str | None:
        """What is wrong with the file, as sentences for its user; None if every line is an object."""
        if self._begun and not self._is_decided():
            self._end_line(self._begun)
        if self._head is not None:
            self._decide_by(self._head)
        if self._foreign is not None:
            return f"The file {self._foreign}"
        if not self._shown:
            return None
        hidden = self._num_problems - len(self._shown)
        least = "at least " if self._is_decided() else ""
        more = f"; and {least}{hidden:,} more line{'s' if hidden > 1 else ''}" if hidden else ""
        details = "; ".join(self._shown) + more
        return details[0].upper() + details[1:]

    def _in_rows(self) -> bool:
        """Whether the file is one of JSON lines, and the line before this one was not blank."""
        return self._head is None and self._blank_since is None

    def _is_decided(self) -> bool:
        """Whether nothing more is looked at."""
        if self._foreign is not None:
            return True
        return self._num_problems >= PROBLEMS_COUNTED or self._num_blank >= BLANK_COUNTED

    def _whole_lines(self, chunk: bytes, start: int, last: int) -> None:
        """The lines from `start` to the last LF of a chunk."""
        in_rows = self._in_rows()
        while start <= last:
            end = chunk.find(b"\n", start)
            line = chunk[start:end]
            start = end + 1
            if in_rows and len(line) <= self._row_limit_bytes and is_plainly_an_object(line):
                self._number += 1
                continue
            self._end_line(line[: self._kept_bytes])
            if self._is_decided():
                return
            in_rows = self._in_rows()

    def _end_line(self, line: bytes | bytearray) -> None:
        """Takes a line of which all is there, or as much as is kept."""
        whole = without_cr(line, self._row_limit_bytes)
        if self._head is None:
            self._read(whole)
            return
        self._head.append(whole)
        if len(self._head) == HEAD_LINES:
            self._decide_by(self._head)

    def _decide_by(self, head: list[bytes]) -> None:
        self._head = None
        self._foreign = foreign_file(head)
        if self._foreign is None:
            for line in head:
                self._read(line)

    def _read(self, line: bytes) -> None:
        self._number += 1
        if is_blank(line, self._number):
            self._blank_since = self._blank_since or self._number
            self._num_blank += 1
            return
        if self._blank_since is not None:  # blank lines at the end of a file are fine
            self._add(self._blank_since, blank_lines(self._blank_since, self._number - 1))
            self._blank_since = None
        if len(line) > self._row_limit_bytes:
            self._add(self._number, longer_than(self._row_limit_bytes))
        elif not is_plainly_an_object(line) and isinstance(reason := read_object(line, self._number), str):
            self._add(self._number, reason)

    def _add(self, number: int, reason: str) -> None:
        self._num_problems += 1
        if len(self._shown) < PROBLEMS_SHOWN:
            self._shown.append(f"line {number}: {reason}")
