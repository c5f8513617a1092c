"""Dying with the parent: by the pipe that is stdin, and by a lock; and that the room needs next to nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.processes.parent import held
from tests.given.running_service import alive, wait_for

WATCHER = """
import os, sys, time
from pathlib import Path
from service.processes.parent import die_with_holder
die_with_holder(Path(sys.argv[1]))
os.fork()
print(os.getpid(), flush=True)
time.sleep(60)
"""


def test_a_lifeline_ends_watchers_and_their_forks(tmp_path: Path) -> None:
    path = tmp_path / "lifeline"
    with held(path):
        with pytest.raises(BlockingIOError), held(path):
            pass
        watcher = subprocess.Popen(
            [sys.executable, "-c", WATCHER, str(path)], stdout=subprocess.PIPE, start_new_session=True
        )
        assert watcher.stdout is not None
        pids = [int(watcher.stdout.readline()) for _ in range(2)]
        assert all(alive(pid) for pid in pids)
    try:
        wait_for(lambda: watcher.poll() is not None, 10, "the watcher ends")
        wait_for(lambda: not any(alive(pid) for pid in pids), 10, "its fork ends")
    finally:
        watcher.kill()
        watcher.wait(10)
        watcher.stdout.close()


ENDING = """
import signal, sys, time
from service.processes.parent import end_with_parent
signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[1] == "stubborn" else lambda *_: sys.exit(7))
end_with_parent(grace_seconds=0.2)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("manner", "code"), [("orderly", 7), ("stubborn", 1)])
def test_a_process_whose_stdin_ends_gets_sigterm_and_then_is_gone(manner: str, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDING, manner], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdin.write(b"a line is no end\n")
        process.stdin.flush()
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(20) == code


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], "orderly"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_child_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, ENDING], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert parent.stdout.readline() == b"ready\n"
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()
    wait_for(lambda: not alive(child), 10, "the child ends")


LEAVING = """
import signal, subprocess, sys
from service.processes.parent import leave_signals_to_parent, take_signals_again
leave_signals_to_parent()
program = subprocess.Popen(["sleep", "60"])
print(program.pid, flush=True)
sys.stdin.readline()
program.kill()
program.wait()
print("still here", flush=True)
sys.stdin.readline()
take_signals_again()
print("ended by what came before", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_are_left_to_the_parent_end_neither_the_process_nor_what_it_starts(number: int) -> None:
    command = [sys.executable, "-c", LEAVING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None and process.stdout is not None
        program = int(process.stdout.readline())
        for pid in (program, process.pid):
            os.kill(pid, number)
        assert alive(program)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"still here\n"
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(20) == -number


CLAIMING = """
import subprocess, sys
from service.processes.parent import claim_standard_streams
incoming, outgoing = claim_standard_streams()
print("a library's word")
subprocess.run(["echo", "a program's word"], check=True)
outgoing.write(incoming.readline() + repr(sys.stdin.readline()).encode())
"""


def test_a_claimed_stdout_carries_the_protocol_alone() -> None:
    done = subprocess.run([sys.executable, "-c", CLAIMING], input=b"one\ntwo\n", capture_output=True, timeout=20)
    assert done.stdout == b"one\n''"
    assert b"a library's word" in done.stderr and b"a program's word" in done.stderr


NEEDS = """
import sys
import service.processes.child, service.processes.parent
print(sorted(name for name in ("pydantic", "aiohttp", "sqlalchemy", "torch", "vllm") if name in sys.modules))
"""


def test_the_room_needs_only_the_standard_library_and_structlog() -> None:
    """It is imported inside vLLM's environment too, in each of its processes."""
    done = subprocess.run([sys.executable, "-c", NEEDS], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "[]\n"
