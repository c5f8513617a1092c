"""A snapshot on disk: a job's private state, from which it continues to the same last bit.

`state.safetensors` holds the tensors (parameters, optimizer moments, random states), `state.json` the counters, the
fingerprint of the environment and the hash of the other file. A snapshot is written in a thread of its own, so that a
slow disk delays only the job whose snapshot it is. A small state is copied first, and its job continues meanwhile. A
large one, such as that of full fine-tuning, would not fit into memory twice: it is streamed to disk from where it is,
and its job waits. Does not depend on what the tensors mean; `slot` does.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from service.domain.errors import JobError
from workers.files.folders import whole_folder
from workers.trainer.process.decision import Evaluation
from workers.trainer.process.plan import PlanVersion

COPIED_BYTES = 64 * 1024 * 1024  # of a state that is copied, at most
TENSORS = "state.safetensors"
STATE = "state.json"


class State(BaseModel):
    """`state.json`. The data cursor is `step`: epoch and position follow from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    job_id: str
    step: int
    trained_tokens: int
    environment: dict[str, str]
    plan: PlanVersion = 1  # by which the rest of the job is batched
    packed: bool = False  # whether its rows are packed, where the plan can
    limit_tokens: int | None = None  # of a micro-batch, since a step ran out of memory; None: the plan's
    evaluations: list[Evaluation] = []  # of a job that decides by them
    general_loss_before: float | None = None  # of a job with a forgetting report
    files: dict[str, str] = {}  # name -> sha256

    def difference(self, now: Mapping[str, str]) -> str:
        """What of the environment is another by `now`; empty where the rest will be the same to the last bit."""
        before = self.environment
        names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        return "; ".join(f"{name}: {before.get(name, 'unknown')} -> {now.get(name, 'unknown')}" for name in names)


@dataclass(frozen=True)
class Snapshot:
    """A job's state at one step."""

    state: State
    tensors: Mapping[str, Tensor]  # on the host
    copied: bool = True  # else the job must not continue before it is written

    @classmethod
    def of(cls, state: State, tensors: Mapping[str, Tensor]) -> "Snapshot":
        """Copies the tensors to the host, unless they are there and large. On a GPU this waits until they are computed.

        From a GPU all are copied: its memory does not hold them twice.
        """
        size = sum(tensor.nbytes for tensor in tensors.values() if tensor.device.type == "cpu")
        copied = size <= COPIED_BYTES
        on_host = {name: tensor.detach().to("cpu", copy=copied).contiguous() for name, tensor in tensors.items()}
        return cls(state, on_host, copied)

    def write(self, folder: Path) -> None:
        """Writes `folder` completely or not at all. Raises DiskFull."""
        with whole_folder(folder) as partial:
            save_file(dict(self.tensors), partial / TENSORS)
            hashed = self.state.model_copy(update={"files": {TENSORS: _sha256(partial / TENSORS)}})
            (partial / STATE).write_text(hashed.model_dump_json(indent=2) + "\n", encoding="utf-8")


class SnapshotWrite:
    """A snapshot that is being written, beside the training. `woken` is called from the thread at the end."""

    def __init__(self, snapshot: Snapshot, folder: Path, woken: Callable[[], None]) -> None:
        self.step = snapshot.state.step
        self.copied = snapshot.copied
        self.folder = folder
        self._snapshot = snapshot
        self._woken = woken
        self._done = threading.Event()
        self._error: BaseException | None = None
        # A daemon: the process must be able to end while the disk blocks.
        threading.Thread(target=self._write, name="snapshot", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether `folder` is complete, or the writing failed."""
        return self._done.is_set()

    def check(self) -> None:
        """Once done: raises the error it failed with, such as DiskFull."""
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        try:
            self._snapshot.write(self.folder)
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()
            self._woken()


def read_snapshot(folder: Path) -> tuple[State, dict[str, Tensor]]:
    """Raises JobError (`snapshot_corrupt`) when a file is missing or differs from what was written."""
    try:
        state = State.model_validate_json((folder / STATE).read_bytes())
        intact = state.files == {TENSORS: _sha256(folder / TENSORS)}
    except (OSError, ValidationError) as error:
        raise JobError("snapshot_corrupt", f"The job's snapshot cannot be read: {error}") from error
    if not intact:
        raise JobError("snapshot_corrupt", f"The job's snapshot of step {state.step} is damaged.")
    return state, load_file(folder / TENSORS)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
