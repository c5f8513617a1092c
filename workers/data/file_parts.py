"""A file of lines in parts that can be read apart: each line belongs to the part in which it begins.

Who reads one part needs no other, and all parts together have each byte of the file once. Does not depend on what a
line is.
"""

from collections.abc import Iterator
from typing import BinaryIO

PART_BYTES = 256 * 1024
CHUNK_BYTES = 64 * 1024  # of what is read beyond a part, for its last line


def num_parts(file_bytes: int, part_bytes: int = PART_BYTES) -> int:
    """How many parts a file of that size has."""
    return -(-file_bytes // part_bytes)


def part_chunks(file: BinaryIO, part: int, part_bytes: int = PART_BYTES) -> Iterator[bytes]:
    """The bytes of the lines that begin in the part (from 0), of a file that can be sought; none where none begins."""
    start, end = part * part_bytes, (part + 1) * part_bytes
    file.seek(max(0, start - 1))  # a LF there: a line begins with the part
    chunk = file.read(end - 1 - max(0, start - 1))
    if part:
        _, found, chunk = chunk.partition(b"\n")
        if not found:
            return
    yield chunk
    while chunk := file.read(CHUNK_BYTES):  # the last line ends with the first LF from the part's last byte on
        place = chunk.find(b"\n")
        yield chunk if place < 0 else chunk[: place + 1]
        if place >= 0:
            return
