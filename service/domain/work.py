"""A piece of work that some worker must do: what it is about, whose it is, and who holds it.

Does not depend on kinds: validating, training and announcing a job are three of them, and an extension may add more.
Rows are in `service.db.work`, the rules in `service.work`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.domain.memory import DeviceMemory

S = TypeVar("S")


@dataclass(frozen=True)
class Work:
    """One row. `attempt` counts claims and is the fence of every write; `base` is None where no model is needed.

    `crashes` counts attempts since the last progress that ended without the work being given back.
    """

    id: str
    sequence: int  # age: lower is older
    kind: str
    subject_id: str
    project_id: str
    base: str | None
    attempt: int = 0
    crashes: int = 0
    owner: str | None = None  # with an expired lease: a worker that was lost


@dataclass(frozen=True)
class Claim(Generic[S]):
    """A worker's right to some work until the lease ends; `subject` is what it is about, as the claim found it."""

    work: Work
    subject: S
    owner: str

    @property
    def attempt(self) -> int:
        return self.work.attempt


LOADING = "loading"


@dataclass(frozen=True)
class WorkerState:
    """A worker's state: for each base that it holds why it is not ready, "" when it is, LOADING before it is known."""

    id: str
    host: str
    bases: Mapping[str, str]
    memory: Mapping[str, DeviceMemory] = field(default_factory=dict)  # of the bases that it has loaded
