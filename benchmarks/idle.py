"""What an installation costs while nobody uses it: CPU and wake-ups of every process of `luthierd up`.

    python -m benchmarks.idle [--seconds 60]

writes benchmarks/idle.txt and .svg. The service is started on the bundled base as at a user's, left alone until its
trainer has loaded, and read from /proc before and after that many seconds, so this needs Linux. A wake-up is a
voluntary context switch of any of its threads. Other work of the machine makes a wake-up dearer, and hardly more
frequent.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars import Spread, draw
from benchmarks.comparison import machine
from tests.given.running_service import RunningService, command_line, descendants, running

OUTPUT = Path(__file__).parent
SETTLE_SECONDS = 20.0
# A part of the service by what its command line says; what says none of these is a helper without a name of its own.
PARTS = {
    "trainer": ('"turn_tokens"',),  # the end of its settings
    "engine": ("workers", "engine"),
    "worker": ("workers", "train"),
    "API": ("service", "serve"),
    "up": ("service", "up"),
}


@dataclass(frozen=True)
class Used:
    """What a process has used since it began."""

    cpu_seconds: float
    wake_ups: int

    def since(self, before: "Used") -> "Used":
        return Used(self.cpu_seconds - before.cpu_seconds, self.wake_ups - before.wake_ups)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--settle", type=float, default=SETTLE_SECONDS, help="before that (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, running(Path(scratch) / "service") as service:
        time.sleep(options.settle)
        found = used_idling(service, options.seconds)
    lines = table(found, options.seconds)
    print("\n".join(lines))
    (options.output / "idle.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shares = {name: Spread([100 * used.cpu_seconds / options.seconds]) for name, used in found.items()}
    draw(options.output / "idle.svg", "An idle installation", "% of a core", {"CPU": shares})


def used_idling(service: RunningService, seconds: float) -> dict[str, Used]:
    """What each part uses in so many seconds from now."""
    assert service.process is not None
    processes = {pid: part_of(pid) for pid in [service.process.pid, *descendants(service.process.pid)]}
    before = {pid: used(pid) for pid in processes}
    time.sleep(seconds)
    found: dict[str, Used] = {}
    for pid, name in processes.items():
        more, so_far = used(pid).since(before[pid]), found.get(name, Used(0.0, 0))
        found[name] = Used(so_far.cpu_seconds + more.cpu_seconds, so_far.wake_ups + more.wake_ups)
    return found


def part_of(pid: int) -> str:
    """The part of the service that this process is."""
    line = command_line(pid)
    return next((name for name, words in PARTS.items() if all(word in line for word in words)), "fork server")


def used(pid: int) -> Used:
    """From /proc: nanoseconds on a processor, and voluntary context switches, of all threads."""
    nanoseconds = wake_ups = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        nanoseconds += int((thread / "schedstat").read_text().split()[0])
        status = (thread / "status").read_text().splitlines()
        wake_ups += next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))
    return Used(nanoseconds / 1e9, wake_ups)


def table(found: dict[str, Used], seconds: float) -> list[str]:
    """A line for each part."""
    lines = [f"{machine()}; {seconds:.0f} s", "", f"{'':14}{'% of a core':>12}{'wake-ups/s':>12}"]
    for name, one in found.items():
        lines.append(f"{name:14}{100 * one.cpu_seconds / seconds:>12.2f}{one.wake_ups / seconds:>12.1f}")
    return lines


if __name__ == "__main__":
    main()
