"""Processes that read a file: they say what one pass says, and what becomes of them, whatever happens to one."""

import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from service.processes.child import ChildProcess
from service.processes.forks import ADDRESS, start_fork
from tests.given.files_in_parts import (
    BASE,
    Seen,
    begun,
    good_rows,
    in_one_pass,
    order_for,
    outcome,
)
from tests.given.forked_process import fork_address
from workers.data import advice
from workers.data.base_text import BaseText
from workers.data.check import FileCheck
from workers.data.content_key import text_digest
from workers.data.lines import Line
from workers.jobs import check_processes
from workers.jobs.check_processes import (
    CheckProcesses,
    ProcessBroken,
    ProcessEnded,
    ProcessesUnusable,
    read_in_processes,
)
from workers.jobs.part_reader import MODULE
from workers.model.load import load_text

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def text() -> BaseText:
    return load_text(BASE)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ChildProcess]:
    """The processes that a test starts, forked from the tests' server."""
    processes: list[ChildProcess] = []
    if address := fork_address():
        monkeypatch.setenv(ADDRESS, address)

    async def start(*arguments: Any, **options: Any) -> ChildProcess:
        processes.append(await start_fork(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr(check_processes, "start_fork", start)
    return processes


def repeated(path: Path, count: int, content: bytes = b'{"text": "Order 7 is late."}\n') -> FileCheck:
    """A check of a file of so many equal lines."""
    path.write_bytes(content * count)
    return begun(path, "text", Seen())


async def all_ended(started: list[ChildProcess]) -> bool:
    async with asyncio.timeout(20):
        await asyncio.gather(*(process.wait() for process in started))
    return len(started) > 0


async def test_processes_say_the_same_and_each_of_them_has_work(
    text: BaseText, tmp_path: Path, started: list[ChildProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "NEAR_ROWS", 20)
    path, numbers, work = tmp_path / "rows.jsonl", random.Random(5), Counter[int]()
    rows = good_rows("supervised", 400, numbers)
    path.write_bytes(b"\n".join(rows))
    expected, message = in_one_pass(path, "supervised", text), check_processes.Reader.message

    async def counted(self: check_processes.Reader) -> bytes:
        work[self.pid] += 1
        return await message(self)

    monkeypatch.setattr(check_processes.Reader, "message", counted)
    seen = Seen()
    check = begun(path, "supervised", seen)
    order = order_for(path, "supervised", part_bytes=2000)
    await read_in_processes(check, order, 2, text_digest(text))
    assert outcome(lambda _: check.finish(), tmp_path)[:3] == expected[:3]
    assert (seen.rows, seen.advisor.advice()) == expected[3:]
    assert len(work) == 2
    assert all(count > 10 for count in work.values())
    assert await all_ended(started)


async def test_a_killed_process_ends_the_attempt_in_the_middle(
    text: BaseText, tmp_path: Path, started: list[ChildProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    check = repeated(tmp_path / "rows.jsonl", 400_000)
    read, num_read = FileCheck.read, 0

    def kill_soon(self: FileCheck, lines: list[Line]) -> None:
        nonlocal num_read
        read(self, lines)
        num_read += 1
        if num_read == 3:
            started[1].send_signal(signal.SIGKILL)

    monkeypatch.setattr(FileCheck, "read", kill_soon)
    with pytest.raises(ProcessEnded):
        await read_in_processes(check, order_for(tmp_path / "rows.jsonl", "text"), 2, text_digest(text))
    assert num_read >= 3
    assert await all_ended(started)


async def test_a_check_that_is_cancelled_leaves_no_process(
    text: BaseText, tmp_path: Path, started: list[ChildProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    check, begins = repeated(tmp_path / "rows.jsonl", 400_000), asyncio.Event()
    read, loop = FileCheck.read, asyncio.get_running_loop()

    def say(self: FileCheck, lines: list[Line]) -> None:
        read(self, lines)
        loop.call_soon_threadsafe(begins.set)

    monkeypatch.setattr(FileCheck, "read", say)
    order = order_for(tmp_path / "rows.jsonl", "text", part_bytes=1000)
    task = asyncio.create_task(read_in_processes(check, order, 2, text_digest(text)))
    await begins.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await all_ended(started)


async def test_a_process_waits_while_nobody_takes_its_lines_and_ends_with_its_parent(
    tmp_path: Path, started: list[ChildProcess]
) -> None:
    path = tmp_path / "rows.jsonl"
    repeated(path, 4_000_000, b"x\n")
    order = order_for(path, "text")
    process = await check_processes.start_fork(
        [sys.executable, "-m", MODULE, order.model_dump_json()], os.environ, stdout=PIPE
    )
    places = [-1, 0]
    async with asyncio.timeout(60):
        while places[-1] == 0 or places[-1] != places[-2]:
            await asyncio.sleep(0.5)
            places.append(place_in(process.pid, path))
    assert 0 < places[-1] < 2 * 1024 * 1024  # of 8 million
    assert process.returncode is None and process.stdin is not None and process.stdout is not None
    process.stdin.close()
    async with asyncio.timeout(20):
        while await process.stdout.read(100_000):
            pass
    assert await all_ended(started)


def place_in(pid: int, path: Path) -> int:
    """Up to where the process has read the file."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if link.is_symlink() and link.readlink() == path:
            return int(Path(f"/proc/{pid}/fdinfo/{link.name}").read_text(encoding="utf-8").split()[1])
    return 0


async def test_processes_that_load_another_tokenizer_read_nothing(
    text: BaseText, tmp_path: Path, started: list[ChildProcess]
) -> None:
    check = repeated(tmp_path / "rows.jsonl", 10)
    with pytest.raises(ProcessesUnusable, match="another"):
        await read_in_processes(check, order_for(tmp_path / "rows.jsonl", "text"), 1, "another digest")
    assert await all_ended(started)


async def test_an_error_in_a_process_is_reported_without_anything_of_a_row(
    text: BaseText, tmp_path: Path, started: list[ChildProcess]
) -> None:
    check = repeated(tmp_path / "rows.jsonl", 10)
    order = order_for(tmp_path / "rows.jsonl", "text")
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(ProcessBroken, match=r"FileNotFoundError at .*part_reader\.py") as broken:
        await read_in_processes(check, order, 1, text_digest(text))
    assert "rows.jsonl" not in str(broken.value)


async def test_a_file_of_which_bytes_are_missing_is_no_result(
    text: BaseText, tmp_path: Path, started: list[ChildProcess]
) -> None:
    check = repeated(tmp_path / "rows.jsonl", 10)
    order = order_for(tmp_path / "rows.jsonl", "text").model_copy(update={"file_bytes": 10_000})
    with pytest.raises(ProcessBroken, match="of 10000 bytes"):
        await read_in_processes(check, order, 1, text_digest(text))


@pytest.mark.parametrize(
    ("setting", "file_bytes", "counts"), [(0, 10**9, [2, 0, 2]), (1, 10**9, [0, 0, 0]), (5, 3 * 10**6, [3, 2, 3])]
)
def test_small_files_and_checks_beside_others_have_no_processes(
    setting: int, file_bytes: int, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_processes, "LEAST_BYTES", 10**6)
    monkeypatch.setattr(check_processes, "available_cpus", lambda: 2)
    monkeypatch.setenv(ADDRESS, "somewhere")
    processes = CheckProcesses(setting)
    with processes.taken(file_bytes) as first, processes.taken(file_bytes) as second:
        pass
    with processes.taken(10**6) as small, processes.taken(file_bytes) as third:
        assert small == 0
    assert [first, second, third] == counts
