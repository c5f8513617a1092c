"""The parent's side of a trainer where no trainer is needed: mailboxes, and processes that do not do their work."""

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from workers.trainer.parent.child import LIMIT_REPORTS, Mailbox
from workers.trainer.parent.handle import TrainerHandle
from workers.trainer.protocol import Crashed, Left, Report, Seated, Stepped


async def stay(handle: TrainerHandle) -> list[Report | Crashed]:
    async with asyncio.timeout(20):
        return [report async for report in handle.seat("one", Path("/nowhere"))]


@pytest.mark.parametrize("command", [["false"], ["echo", "not a report"], ["sleep", "60"]], ids=lambda words: words[0])
async def test_a_process_that_does_not_become_ready_is_nobodys_fault(command: list[str]) -> None:
    handle = TrainerHandle(command, start_seconds=1.0)
    assert await stay(handle) == [Crashed("one", guilty=False)]
    assert handle.ready is None and handle.pid is None
    await handle.stop()


@pytest.mark.parametrize(
    ("written", "events"), [('{"type": "rea', []), ("a row of a user\n", ["trainer.garbled"])], ids=["cut", "garbled"]
)
async def test_a_report_that_is_cut_is_no_error_and_no_log_quotes_one(written: str, events: list[str]) -> None:
    """A process that is killed, or ends because its parent was silent, may be in the middle of a line."""
    handle = TrainerHandle([sys.executable, "-c", f"print({written!r}, end='')"])
    with capture_logs() as logs:
        assert await stay(handle) == [Crashed("one", guilty=False)]
    assert [line["event"] for line in logs if line["log_level"] == "error"] == events
    assert "row of a user" not in str(logs)
    await handle.stop()


async def test_restarts_wait_longer_and_longer() -> None:
    handle = TrainerHandle(["false"], backoff_seconds=0.02, backoff_limit_seconds=0.08)
    with capture_logs() as logs:
        for _ in range(5):
            await stay(handle)
    assert [line["seconds"] for line in logs if line["event"] == "trainer.restarting"] == [0.02, 0.04, 0.08, 0.08]


async def test_a_stopped_handle_seats_nobody() -> None:
    handle = TrainerHandle(["cat"])  # ends when its stdin does
    waiting = asyncio.create_task(stay(handle))
    while handle.pid is None:
        await asyncio.sleep(0.01)
    await handle.stop()
    assert await waiting == await stay(handle) == [Left(job_id="one", finished=False)]
    await handle.stop()


async def test_a_process_that_ignores_its_end_is_killed() -> None:
    handle = TrainerHandle(["sleep", "60"], stop_seconds=0.2)
    waiting = asyncio.create_task(stay(handle))
    while handle.pid is None:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await handle.stop()
        await waiting
    assert handle.pid is None


async def test_commands_without_a_process_do_nothing() -> None:
    handle = TrainerHandle(["false"])
    await handle.beat()
    await handle.leave("one", snapshot=True)
    await handle.stop()
    assert handle.pid is None


# Whoever is asked to leave writes on into the job's folder until `gate` is there, as during a long snapshot.
SLOW_TO_LEAVE = """
import json, pathlib, sys, time
print(json.dumps(dict(type="ready", revision="1", hashes={}, environment={})), flush=True)
seat = json.loads(sys.stdin.readline())
print(json.dumps(dict(type="seated", job_id="one", step=0, total_steps=9)), flush=True)
sys.stdin.readline()
while not pathlib.Path(sys.argv[1]).exists():
    pathlib.Path(seat["folder"], "snapshot").write_text("half of it")
    time.sleep(0.01)
print(json.dumps(dict(type="left", job_id="one", finished=False)), flush=True)
sys.stdin.readline()
"""


async def test_a_folder_is_removed_only_when_the_trainer_has_left_it(tmp_path: Path) -> None:
    gate, folder = tmp_path / "gate", tmp_path / "job"
    folder.mkdir()
    handle = TrainerHandle([sys.executable, "-c", SLOW_TO_LEAVE, str(gate)])
    async with asyncio.timeout(20):
        async with aclosing(handle.seat("one", folder)) as reports:
            assert isinstance(await anext(reports), Seated)
        handle.discard("one", folder)  # whoever relayed has lost the lease
        while not (folder / "snapshot").exists():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert folder.exists() and handle.pid is not None
        gate.touch()
        while folder.exists():
            await asyncio.sleep(0.01)
        assert handle.pid is not None  # it did not crash either
        await handle.stop()


async def test_the_folder_of_a_trainer_that_has_ended_is_removed(tmp_path: Path) -> None:
    handle = TrainerHandle(["false"])
    await stay(handle)
    (tmp_path / "job").mkdir()
    handle.discard("one", tmp_path / "job")
    await handle.stop()
    assert not (tmp_path / "job").exists()


async def test_a_slow_reader_makes_the_writer_wait_and_loses_nothing() -> None:
    mailbox = Mailbox()
    reports = [
        Stepped(job_id="one", step=step, trained_tokens=0, seconds=0.0, metrics={}) for step in range(3 * LIMIT_REPORTS)
    ]

    async def write() -> None:
        for report in reports:
            await mailbox.put(report)
        mailbox.close()

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.01)
    assert not writing.done()
    read = []
    while (report := await mailbox.take()) is not None:
        read.append(report)
    assert read == reports


async def test_a_closed_mailbox_holds_nobody_up() -> None:
    mailbox = Mailbox()
    stepped = Stepped(job_id="one", step=1, trained_tokens=0, seconds=0.0, metrics={})
    for _ in range(LIMIT_REPORTS):
        await mailbox.put(stepped)
    writing = asyncio.create_task(mailbox.put(stepped))
    await asyncio.sleep(0)
    mailbox.close(Crashed("one", guilty=True))
    async with asyncio.timeout(1):
        await writing
        await mailbox.put(stepped)
    reports = []
    while (report := await mailbox.take()) is not None:
        reports.append(report)
    assert reports == [*[stepped] * LIMIT_REPORTS, Crashed("one", guilty=True)]
