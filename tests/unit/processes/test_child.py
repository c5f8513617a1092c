"""Children that are kept running: started again, asked to end, and ended with everything that they have started."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from service.processes.child import Backoff, KeptChild, kill_group, start_child
from tests.given.running_service import alive, wait_for

SECONDS = 20.0


def kept(script: str, *arguments: str, stop_seconds: float = SECONDS, **options: object) -> KeptChild:
    command = [sys.executable, "-c", script, *arguments]
    return KeptChild("test", command, {}, stop_seconds=stop_seconds, **options)  # type: ignore[arg-type]


async def lines(path: Path, count: int) -> list[str]:
    """What children have written, once it is so many lines."""
    async with asyncio.timeout(SECONDS):
        while not path.exists() or len(path.read_text().splitlines()) < count:
            await asyncio.sleep(0.01)
    return path.read_text().splitlines()


def test_a_pause_doubles_with_each_bad_life_and_starts_anew_after_a_good_one() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.after(good=False) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.after(good=True) == 0.5
    assert [backoff.after(good=False) for _ in range(2)] == [0.5, 1.0]


NOTE = """
import os, pathlib, subprocess, sys
with pathlib.Path(sys.argv[1]).open("a") as stream:
    left = subprocess.Popen(["sleep", "60"])
    stream.write(f"{left.pid}\\n")
"""


async def test_a_child_that_ends_is_started_again_and_leaves_nobody_behind(tmp_path: Path) -> None:
    journal, prepared = tmp_path / "journal", []
    child = kept(NOTE, str(journal), prepare=lambda: prepared.append(1))
    keeping = asyncio.create_task(child.keep())
    left = [int(line) for line in await lines(journal, 2)]
    assert len(set(left)) == 2 and len(prepared) >= 2
    await asyncio.to_thread(wait_for, lambda: not alive(left[0]), SECONDS, "what the first life started ends")
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await child.stop()
    await asyncio.to_thread(wait_for, lambda: not any(map(alive, left)), SECONDS, "nothing is left")


STUBBORN = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0) if sys.argv[2] == "polite" else None)
left = subprocess.Popen(["sleep", "60"])
pathlib.Path(sys.argv[1]).write_text(f"{left.pid}\\n")
time.sleep(60)
"""


@pytest.mark.parametrize("manner", ["polite", "stubborn"])
async def test_a_stopped_child_is_asked_first_and_its_group_ends_with_it(tmp_path: Path, manner: str) -> None:
    child = kept(STUBBORN, str(tmp_path / "pid"), manner, stop_signal=signal.SIGUSR1,
                 stop_seconds=SECONDS if manner == "polite" else 0.2)  # fmt: skip
    keeping = asyncio.create_task(child.keep())
    (left,) = await lines(tmp_path / "pid", 1)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    async with asyncio.timeout(SECONDS / 2):
        await child.stop()
    await asyncio.to_thread(wait_for, lambda: not alive(int(left)), SECONDS, "the group has ended")
    await child.stop()  # may be called again


async def test_a_child_reads_until_we_close_its_stdin_and_a_killed_group_may_be_killed_again() -> None:
    process = await start_child(["cat"], {}, stdout=asyncio.subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"one\n")
    assert await process.stdout.readline() == b"one\n"
    kill_group(process)
    assert await process.wait() == -signal.SIGKILL
    kill_group(process)


async def test_a_command_that_is_not_there_is_an_error_of_the_caller() -> None:
    with pytest.raises(OSError):
        await start_child(["/no/such/command"], {})
