"""Checks of large files in several processes: how many there are, and the lines that they find, in the file's order.

A check is Python, of which a process runs one thread at a time. So the parts of a large file are read by processes
(`workers.jobs.part_reader`), in turn by each, and what they find goes to the one `FileCheck` in the order of the file.
A process that is ahead waits until its turn comes, so memory holds a few groups of lines of each. Called by
`workers.jobs.datasets`. Counts no crashes: `ProcessEnded` is charged by whoever holds the work.
"""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress

import msgspec
import structlog

from service.processes.child import ChildProcess, kill_group
from service.processes.cpus import available_cpus
from service.processes.forks import ADDRESS, LIBRARY_ENVIRONMENT, start_fork
from workers.data.check import FileCheck
from workers.data.file_parts import num_parts
from workers.jobs.part_reader import (
    ENOUGH_SIGNATURES,
    LENGTH,
    MODULE,
    Broken,
    Lines,
    Loaded,
    Message,
    PartEnd,
    PartOrder,
)

log = structlog.get_logger()
MOST_PROCESSES = 4  # each has the libraries and the tokenizer in memory
# Of a file for each process: below, what a process costs to start is more than it saves. The second where it is
# not forked.
LEAST_BYTES, LEAST_BYTES_UNFORKED = 4_000_000, 32_000_000
HERE_ALONE = 1  # as a setting: no other process
MESSAGE_SECONDS = 600.0  # the longest silence of a process; a group of lines takes it a fraction of a second
END_SECONDS = 30.0


class ProcessEnded(Exception):
    """A process was killed, or ended by itself, before it had read its parts: for want of memory perhaps."""


class ProcessesUnusable(Exception):
    """The processes cannot be started, or do not load what this process has loaded. None has read a line."""


class ProcessBroken(Exception):
    """A bug in the service: the type of the error that ended a process, and where it was raised."""


class CheckProcesses:
    """The processes that one worker has for its checks. `setting` as `LUTHIER_CHECK_PROCESSES`."""

    def __init__(self, setting: int) -> None:
        self._free = setting or min(available_cpus(), MOST_PROCESSES)

    @contextmanager
    def taken(self, file_bytes: int) -> Iterator[int]:
        """While the block lasts, that many processes may read a file of this size; fewer than 2: none shall."""
        least = LEAST_BYTES if os.environ.get(ADDRESS) else LEAST_BYTES_UNFORKED
        count = min(self._free, file_bytes // least)
        count = count if count > 1 else 0
        self._free -= count
        try:
            yield count
        finally:
            self._free += count


async def read_in_processes(check: FileCheck, order: PartOrder, processes: int, text: str) -> None:
    """Has the whole file read by so many processes; `text` is the `text_digest` of the base's tokenizer here.

    Raises DatasetInvalid as `FileCheck.read` does, ProcessEnded, ProcessesUnusable and ProcessBroken. In any case, a
    cancellation included, no process is left.
    """
    async with AsyncExitStack() as stack:
        readers = []
        for number in range(processes):
            reader = await _start(order.model_copy(update={"process": number, "processes": processes}))
            stack.push_async_callback(reader.end)
            readers.append(reader)
        log.info("check.processes_started", file_bytes=order.file_bytes, pids=[reader.pid for reader in readers])
        for reader in readers:
            await _load(reader, text)
        signs, num_bytes = check.signs, 0
        for part in range(num_parts(order.file_bytes, order.part_bytes)):
            num_bytes += await _read_part(check, readers[part % processes], part)
            if signs and not check.signs:
                signs = False
                for reader in readers:
                    reader.write(ENOUGH_SIGNATURES)
        if num_bytes != order.file_bytes:
            raise ProcessBroken(f"{num_bytes} of {order.file_bytes} bytes were read")


class Reader:
    """One process, from the outside."""

    def __init__(self, process: ChildProcess) -> None:
        self._process = process
        self._messages = msgspec.msgpack.Decoder(Message)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def message(self) -> bytes:
        """The next that it writes. Raises ProcessEnded."""
        output = self._process.stdout
        assert output is not None
        try:
            async with asyncio.timeout(MESSAGE_SECONDS):
                (length,) = LENGTH.unpack(await output.readexactly(LENGTH.size))
                return await output.readexactly(length)
        except (asyncio.IncompleteReadError, OSError, TimeoutError) as error:
            raise ProcessEnded(f"process {self.pid}: {type(error).__name__}") from error

    def decoded(self, message: bytes) -> Message:
        """Raises ProcessBroken for the report of a bug."""
        found: Message = self._messages.decode(message)
        if isinstance(found, Broken):
            raise ProcessBroken(f"{found.error} at {', '.join(found.places)}")
        return found

    def write(self, line: bytes) -> None:
        """Writes without waiting: the process always reads."""
        assert self._process.stdin is not None
        self._process.stdin.write(line)

    async def end(self) -> None:
        """Kills it, and takes what it had written: only then is its pipe closed."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        kill_group(process)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                while await process.stdout.read(1024 * 1024):
                    pass
                await process.wait()


async def _start(order: PartOrder) -> Reader:
    # One thread each: several processes on all cores have no use for a tokenizer that uses all of them.
    environment = LIBRARY_ENVIRONMENT | os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    try:
        process = await start_fork([sys.executable, "-m", MODULE, order.model_dump_json()], environment, stdout=PIPE)
    except OSError as error:
        raise ProcessesUnusable(type(error).__name__) from error
    return Reader(process)


async def _load(reader: Reader, text: str) -> None:
    """Returns when it has loaded the same tokenizer."""
    found = reader.decoded(await reader.message())
    if not isinstance(found, Loaded):
        raise ProcessesUnusable(type(found).__name__)
    if found.text != text:
        raise ProcessesUnusable("its tokenizer is another")


async def _read_part(check: FileCheck, reader: Reader, part: int) -> int:
    """Brings the part's lines to the check. Returns how many bytes they have."""

    while (end := await asyncio.to_thread(_take, check, reader, await reader.message())) is None:
        pass
    if end.part != part:
        raise ProcessBroken(f"part {end.part} in place of {part}")
    return end.num_bytes


def _take(check: FileCheck, reader: Reader, message: bytes) -> PartEnd | None:
    """Brings the message's lines to the check; returns the message after the last of them."""
    found = reader.decoded(message)
    if isinstance(found, Lines):
        check.read(found.lines)
        return None
    if not isinstance(found, PartEnd):
        raise ProcessBroken(f"{type(found).__name__} in place of lines")
    return found
