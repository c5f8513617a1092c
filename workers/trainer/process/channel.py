"""The child's end of the pipes: commands in, reports out, and the three signs that the parent is gone:
its stdin ends, its stdout breaks, or no beat comes.

Knows lines and threads; `loop` carries the commands out.
"""

import os
import queue
import threading
import time

from service.processes.parent import claim_standard_streams, hear_parent, leave_signals_to_parent
from workers.trainer.launch import EXIT_PARENT_GONE, EXIT_PARENT_SILENT, SILENCE
from workers.trainer.protocol import Beat, Leave, Pause, Report, Reward, Seat, decode_command, encode

_CHECKS_PER_LIMIT = 20
Order = Seat | Leave | Pause | Reward  # a command for the loop


class Channel:
    """Created once, when the process starts: from then on nothing else can write to the protocol's stdout."""

    def __init__(self, lease_seconds: float) -> None:
        self._limit_seconds = SILENCE * lease_seconds
        leave_signals_to_parent()  # a worker that ends asks for snapshots first
        incoming, self._out = claim_standard_streams()
        self._commands: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._beaten_at = time.monotonic()
        hear_parent(incoming, self._take, lambda: os._exit(EXIT_PARENT_GONE))

    def watch(self) -> None:
        """From here on, this process ends when no beat comes for too long, also in the middle of a step."""
        self._beaten_at = time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def say(self, report: Report) -> None:
        """Writes one report; waits while the parent is not reading, and ends the process when the parent is gone."""
        try:
            self._out.write(encode(report))
            self._out.flush()
        except BrokenPipeError:
            os._exit(EXIT_PARENT_GONE)

    def commands(self, wait: bool) -> list[Order]:
        """The commands since the last call. With `wait`, waits for one, or for `wake`."""
        commands = [self._commands.get()] if wait else []
        while not self._commands.empty():
            commands.append(self._commands.get())
        return [command for command in commands if command is not None]

    def wake(self) -> None:
        """Ends a wait for commands, or the next one. From any thread."""
        self._commands.put(None)

    def _take(self, line: bytes) -> None:
        command = decode_command(line)
        if isinstance(command, Beat):
            self._beaten_at = time.monotonic()
        else:
            self._commands.put(command)

    def _watch(self) -> None:
        while time.monotonic() - self._beaten_at < self._limit_seconds:
            time.sleep(self._limit_seconds / _CHECKS_PER_LIMIT)
        os._exit(EXIT_PARENT_SILENT)
