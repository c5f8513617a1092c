"""A process that reads parts of a training file: `python -m workers.jobs.part_reader ORDER`, an order in JSON.

Started by `workers.jobs.check_processes`, several for one file. Each reads its share of the parts and writes what it
finds to stdout, group by group: a length of 4 bytes and a message in MessagePack. It waits while nobody reads that, so
it is never far ahead. A line on stdin says that no more signatures are needed. Ends when stdin does, in the middle of a
line too. Nothing of a row reaches a log: an error is reported by its type and its places.
"""

import gc
import os
import struct
import sys
import traceback
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from threading import Event
from typing import BinaryIO, TypeAlias

import msgspec
from msgspec import Struct
from pydantic import BaseModel, ConfigDict

from service.processes.parent import claim_standard_streams, hear_parent, leave_signals_to_parent
from service.recipes.base import Base
from service.recipes.json_lines import split_lines
from service.recipes.objective import find_objective
from workers.data.base_text import BaseText
from workers.data.content_key import text_digest
from workers.data.file_parts import PART_BYTES, num_parts, part_chunks
from workers.data.lines import Line, LineReader, Look
from workers.model.load import load_text

MODULE = "workers.jobs.part_reader"
LENGTH = struct.Struct("!I")
ENOUGH_SIGNATURES = b"enough signatures\n"


class PartOrder(BaseModel):
    """Which file is read, for what, and which of its parts: `process`, and every `processes`th after it."""

    model_config = ConfigDict(frozen=True)

    path: str
    file_bytes: int
    base: Base
    objective: str
    row_limit_bytes: int
    day: date
    glances: bool
    prefix_tokens: int = 0  # of the base's context, that are the tuning's own
    turns_apart: bool = False  # as `Renderer`
    part_bytes: int = PART_BYTES
    process: int = 0
    processes: int = 1


class Loaded(Struct, frozen=True, tag="loaded", array_like=True):
    """The base's tokenizer is loaded; `text` is its `text_digest`."""

    text: str


class NotLoaded(Struct, frozen=True, tag="not_loaded", array_like=True):
    """It cannot be loaded: the type of the error."""

    error: str


class Lines(Struct, frozen=True, tag="lines", array_like=True):
    """The next lines of the part."""

    lines: list[Line]


class PartEnd(Struct, frozen=True, tag="end", array_like=True):
    """All lines of a part were sent, which had so many bytes together."""

    part: int
    num_bytes: int


class Broken(Struct, frozen=True, tag="broken", array_like=True):
    """A bug in the service: the type of the error, and `file:line:function` of each place, the innermost last."""

    error: str
    places: list[str]


Message: TypeAlias = Loaded | NotLoaded | Lines | PartEnd | Broken


def main() -> None:
    leave_signals_to_parent()  # by itself its end would count as a crash
    incoming, outgoing = claim_standard_streams()
    enough = Event()
    hear_parent(incoming, lambda _line: enough.set(), lambda: os._exit(0))
    try:
        for message in _messages(PartOrder.model_validate_json(sys.argv[1]), enough):
            _write(outgoing, message)
    except BrokenPipeError:  # who asked has ended
        return
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        places = [f"{frame.filename}:{frame.lineno}:{frame.name}" for frame in frames]
        _write(outgoing, Broken(type(error).__name__, places))


def read_parts(order: PartOrder, text: BaseText, enough: Event) -> Iterator[Lines | PartEnd]:
    """What is found in the parts of the order, one after another; later lines lack signatures once `enough` is set."""
    reader = LineReader(
        text,
        context_tokens=order.base.context_tokens,
        row_limit_bytes=order.row_limit_bytes,
        objective=find_objective(order.objective),
        day=order.day,
        look=_look() if order.glances else None,
        prefix_tokens=order.prefix_tokens,
        turns_apart=order.turns_apart,
    )
    with Path(order.path).open("rb") as file:
        for part in range(order.process, num_parts(order.file_bytes, order.part_bytes), order.processes):
            chunks = _Counted(part_chunks(file, part, order.part_bytes))
            first = 1 if part == 0 else 2  # a line's number means nothing here, but that it is the file's first
            for group in reader.read(enumerate(split_lines(chunks, order.row_limit_bytes), start=first)):
                yield Lines(group)
                reader.signs = not enough.is_set()
            yield PartEnd(part, chunks.num_bytes)


def _messages(order: PartOrder, enough: Event) -> Iterator[Message]:
    try:
        text = load_text(order.base)
        yield Loaded(text_digest(text))
    except Exception as error:  # transformers raises many kinds of errors for a folder without a model
        yield NotLoaded(type(error).__name__)
        return
    gc.collect()
    gc.freeze()  # libraries live as long as the process
    yield from read_parts(order, text, enough)


def _look() -> Look:
    from workers.data.glance import glance  # noqa: PLC0415  half of the imports, and only checks need it

    return glance


class _Counted:
    """Chunks, and how many bytes those had that were taken."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.num_bytes = 0
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.num_bytes += len(chunk)
            yield chunk


def _write(outgoing: BinaryIO, message: Message) -> None:
    written = msgspec.msgpack.encode(message)
    outgoing.write(LENGTH.pack(len(written)))
    outgoing.write(written)
    outgoing.flush()


if __name__ == "__main__":
    main()
