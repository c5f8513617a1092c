"""The trainer's loop in the test's own process and thread: commands from a script, reports into a list."""

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.data.tokenized import TokenizedDataset
from workers.model.load import LoadedBase
from workers.trainer.process.channel import Channel, Order
from workers.trainer.process.loop import Trainer
from workers.trainer.protocol import Failed, JobSpec, Left, Paused, Report, Seat

PATIENCE_SECONDS = 60.0


class Ended(Exception):
    """The test has seen what it wanted."""


class Script(Channel):
    """Ends the loop when every job has left. `watch_report` may put commands; whatever it raises ends the loop too."""

    def __init__(self, *folders: Path, watch_report: Callable[[Report], None] = lambda report: None) -> None:
        self._commands = queue.SimpleQueue()
        self._watch_report = watch_report
        self._jobs = {folder.name for folder in folders}
        self.reports: list[Report] = []
        for folder in folders:
            self.put(Seat(job_id=folder.name, folder=str(folder)))

    def put(self, command: Order) -> None:
        self._commands.put(command)

    def say(self, report: Report) -> None:
        self.reports.append(report)
        self._watch_report(report)
        if isinstance(report, Left | Paused | Failed):
            self._jobs.discard(report.job_id)
        if not self._jobs:
            raise Ended

    def watch(self) -> None:
        """Nobody has to live on."""

    def commands(self, wait: bool) -> list[Order]:
        if wait:  # within bounds
            self._commands.put(self._commands.get(timeout=PATIENCE_SECONDS))
        return super().commands(wait=False)

    def of(self, job_id: str, *kinds: type[Any]) -> list[Any]:
        """The reports of one job, of these kinds."""
        return [one for one in self.reports if isinstance(one, kinds) and one.job_id == job_id]


def run(base: LoadedBase, script: Script, turn_tokens: int = 100) -> None:
    """Until every job has left."""
    try:
        Trainer(base, turn_tokens, script).run()
    except Ended:
        return


def job_folder(root: Path, spec: JobSpec, train: TokenizedDataset, valid: TokenizedDataset | None = None) -> Path:
    """A job as the parent stages it; the folder's name is the job's id."""
    folder = root / spec.job_id
    folder.mkdir()
    (folder / "job.json").write_text(spec.model_dump_json())
    train.save(folder / "train.safetensors")
    if valid is not None:
        valid.save(folder / "valid.safetensors")
    return folder
