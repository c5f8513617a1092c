"""Children forked from a fork server are what children started normally are, and need no server."""

import asyncio
import gc
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from service.processes.child import ChildProcess, KeptChild, kill_group, start_child
from service.processes.forks import ADDRESS, fork_server, start_fork
from tests.given.forked_process import ROOT
from tests.given.running_service import alive, wait_for

SECONDS = 60.0


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Process]:
    """A fork server of this test's own; the module `this` takes long to import."""
    monkeypatch.delenv(ADDRESS, raising=False)
    before = set(psutil.Process().children())
    with fork_server(["this"]):
        [server] = set(psutil.Process().children()) - before
        yield server


@contextmanager
def another_server(modules: Sequence[str], folder: Path | None = None) -> Iterator[None]:
    """In place of the test's own, whose address is back before that one ends, so that it does not outlive it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(ADDRESS)
        with fork_server(modules, folder):
            yield


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tests.given.forked", *words]


async def ended(process: ChildProcess) -> int:
    async with asyncio.timeout(SECONDS):
        return await process.wait()


async def told(process: ChildProcess) -> dict[str, object]:
    """What `report` says, once it has got "spruce" and the end of its stdin."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"spruce")
    process.stdin.write_eof()
    async with asyncio.timeout(SECONDS):
        said: dict[str, object] = json.loads(await process.stdout.readline())
        assert await process.stdout.read() == b"SPRUCE"
    return said


async def test_a_fork_is_what_a_new_process_is_and_has_imported_already(server: psutil.Process) -> None:
    environment = {**os.environ, "WORD": "maple", "PATH": "/nowhere"}
    fork = await start_fork(command("report", "a b", "ü"), environment, stdout=PIPE)
    new = await start_child(command("report", "a b", "ü"), environment, stdout=PIPE)
    forked, anew = await told(fork), await told(new)
    assert (fork.pid, fork.pid) == (forked.pop("pid"), forked.pop("group"))  # in a session of its own
    assert (new.pid, new.pid) == (anew.pop("pid"), anew.pop("group"))
    assert (forked.pop("loaded"), anew.pop("loaded")) == (True, False)
    assert forked == anew
    assert forked["open"] == [0, 1, 2]
    assert (await ended(fork), await ended(new)) == (0, 0)


async def test_its_command_line_is_its_own(server: psutil.Process) -> None:
    fork = await start_fork(command("stay"), os.environ, stdout=PIPE)
    assert fork.stdout is not None
    await fork.stdout.readline()
    assert psutil.Process(fork.pid).parent() == server
    assert "tests.given.forked stay" in " ".join(psutil.Process(fork.pid).cmdline())
    kill_group(fork)
    assert await ended(fork) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("words", "code"), [(["exit", "0"], 0), (["exit", "71"], 71), (["raise"], 1), (["die"], -signal.SIGKILL)]
)
async def test_its_end_is_reported(words: list[str], code: int) -> None:
    fork = await start_fork(command(*words), os.environ)
    assert (await ended(fork), fork.returncode) == (code, code)
    fork.send_signal(signal.SIGTERM)  # to nobody


async def test_it_ends_as_a_process_does_without_taking_apart_what_the_server_has_imported() -> None:
    fork = await start_fork(command("end"), os.environ, stdout=PIPE)
    assert fork.stdout is not None
    async with asyncio.timeout(SECONDS):
        assert await fork.stdout.read() == b"the thread\nat the end\n"
    assert await ended(fork) == 1, "sys.exit with a text"


async def test_forks_run_side_by_side_and_their_group_can_be_killed() -> None:
    forks = await asyncio.gather(*(start_fork(command("stay"), os.environ, stdout=PIPE) for _ in range(5)))
    left = []
    for fork in forks:
        assert fork.stdout is not None
        left.append(int(await fork.stdout.readline()))
    forks[0].send_signal(signal.SIGTERM)
    assert await ended(forks[0]) == -signal.SIGTERM
    for fork in forks:
        kill_group(fork)
    assert [await ended(fork) for fork in forks[1:]] == [-signal.SIGKILL] * 4
    await asyncio.to_thread(wait_for, lambda: not any(map(alive, left)), SECONDS, "what they had started ends")


async def test_without_its_server_a_fork_ends_and_the_next_child_is_started_anew(server: psutil.Process) -> None:
    fork = await start_fork(command("stay"), os.environ, stdout=PIPE)
    server.kill()
    assert await ended(fork) == -signal.SIGKILL
    await asyncio.to_thread(wait_for, lambda: not alive(fork.pid), SECONDS, "the orphan ends")
    new = await start_fork(command("report"), os.environ, stdout=PIPE)
    assert (await told(new))["loaded"] is False
    assert await ended(new) == 0


async def test_no_signal_that_ends_others_ends_the_server_and_its_forks_take_them_as_before(
    server: psutil.Process,
) -> None:
    """A service manager sends SIGTERM to every process at once; a worker's trainers are then still needed."""
    fork = await start_fork(command("stay"), os.environ, stdout=PIPE)
    assert fork.stdout is not None
    await fork.stdout.readline()
    server.send_signal(signal.SIGTERM)
    server.send_signal(signal.SIGINT)
    assert await ended(await start_fork(command("exit", "3"), os.environ)) == 3
    assert server.is_running() and fork.returncode is None
    fork.send_signal(signal.SIGTERM)
    assert await ended(fork) == -signal.SIGTERM
    kill_group(fork)
    async with asyncio.timeout(SECONDS):
        await fork.stdout.read()


def ignores_sigterm(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    [mask] = [line.split()[1] for line in lines if line.startswith("SigIgn:")]
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


async def test_no_signal_ends_a_server_that_still_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\nprint(end='')\ntime.sleep(2)\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    before = set(psutil.Process().children())
    with another_server(["slow_to_import"]):
        [server] = set(psutil.Process().children()) - before
        await asyncio.to_thread(wait_for, lambda: ignores_sigterm(server.pid), SECONDS, "it has begun")
        server.send_signal(signal.SIGTERM)
        assert await ended(await start_fork(command("exit", "3"), os.environ)) == 3


async def test_a_server_finds_its_modules_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    with another_server(["this"], ROOT):
        assert await ended(await start_fork(command("exit", "7"), os.environ)) == 7


async def test_what_is_no_request_is_no_end_of_the_server(server: psutil.Process) -> None:
    for nonsense in (b"", b"\0\0\0\4{}{}", b"GET / HTTP/1.1\r\n\r\n"):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(os.environ[ADDRESS])
            caller.sendall(nonsense)
    assert await ended(await start_fork(command("exit", "5"), os.environ)) == 5
    assert server.is_running()


async def test_a_kept_child_may_be_a_fork(server: psutil.Process) -> None:
    child = KeptChild("test", command("stay"), os.environ, stop_seconds=SECONDS, start=start_fork)
    keeping = asyncio.create_task(child.keep())
    await asyncio.to_thread(wait_for, lambda: len(server.children()) == 1, SECONDS, "it runs")
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await child.stop()
    await asyncio.to_thread(wait_for, lambda: not server.children(), SECONDS, "it has ended")


@pytest.mark.parametrize("seconds", [0, 0.001, 0.003, 0.01, 0.03])
async def test_a_start_that_is_cancelled_leaves_neither_a_fork_nor_a_connection(
    seconds: float, server: psutil.Process
) -> None:
    assert await ended(await start_fork(command("exit", "0"), os.environ)) == 0, "the server has imported"
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    reads_stdin = command("report")
    starting = [asyncio.create_task(start_fork(reads_stdin, os.environ, stdout=PIPE)) for _ in range(3)]
    await asyncio.sleep(seconds)
    for start in starting:
        start.cancel()
    for fork in await asyncio.gather(*starting, return_exceptions=True):
        if not isinstance(fork, BaseException):  # it was there already
            kill_group(fork)
            await ended(fork)
    await asyncio.to_thread(wait_for, lambda: not server.children(), SECONDS, "every fork ends")
    gc.collect()  # an open connection that nobody has any more is a warning, and so an error
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


ABOVE = """
import sys, time
from service.processes.forks import fork_server
with fork_server(["this"]):
    print(flush=True)
    time.sleep(60)
"""


async def test_a_server_ends_with_who_started_it_and_leaves_no_folder() -> None:
    environment = {name: value for name, value in os.environ.items() if name != ADDRESS}
    above = await start_child([sys.executable, "-c", ABOVE], environment, stdout=PIPE)
    assert above.stdout is not None
    await above.stdout.readline()
    [server] = psutil.Process(above.pid).children()
    async with asyncio.timeout(SECONDS):
        while "service.processes.fork_server" not in (words := server.cmdline()):  # for a moment it is the parent's
            await asyncio.sleep(0.02)
    address = Path(words[words.index("service.processes.fork_server") + 1])
    await asyncio.to_thread(wait_for, address.exists, SECONDS, "it listens")
    os.kill(above.pid, signal.SIGKILL)
    await ended(above)
    await asyncio.to_thread(wait_for, lambda: not address.parent.exists(), SECONDS, "the folder is removed")
    await asyncio.to_thread(wait_for, lambda: not alive(server.pid), SECONDS, "the server ends")


AFTER = """
import os, signal, socket
from service.processes.fork_server import ForkServer
with socket.create_server(("127.0.0.1", 0)) as listener:
    assert ForkServer(listener).run() is None
os.kill(os.getpid(), signal.SIGCHLD)  # as when a fork ends with its server
"""


async def test_a_server_that_has_ended_hears_of_no_fork() -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", AFTER, stdin=PIPE, stderr=PIPE)
    async with asyncio.timeout(SECONDS):
        _, said = await child.communicate(b"")
    assert (child.returncode, said) == (0, b"")
