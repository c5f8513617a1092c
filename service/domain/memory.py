"""The memory of a training: what a job needs by part, what workers have, and which of them fit. Pure arithmetic.

A base's weights are in memory once, for all jobs. What a job adds: its trained parameters, a gradient and two averages
of Adam for each of them, and what a forward pass keeps for the backward pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes by part. All but the activations are exact; these are an estimate, of the largest micro-batch.

    `training_bytes` is what the job adds to a worker that holds the base: all parts but its weights.
    """

    base_weights_bytes: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    training_bytes: int

    @classmethod
    def of(cls, base_weights_bytes: int, parameter_bytes: int, activation_bytes: int) -> "MemoryNeed":
        """Gradients are as large as the parameters, and so is each of AdamW's two averages."""
        gradients, averages = parameter_bytes, 2 * parameter_bytes
        training = parameter_bytes + gradients + averages + activation_bytes
        return cls(base_weights_bytes, parameter_bytes, gradients, averages, activation_bytes, training)


@dataclass(frozen=True)
class DeviceMemory:
    """What a trainer says once it has loaded its base: `free_bytes` are left beside it, while nothing is trained."""

    device: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class WorkerRoom:
    """A worker that holds the job's base. Unknown (None) until it has loaded it."""

    worker: str
    device: str | None
    total_bytes: int | None
    free_bytes: int | None
    fits: bool | None


@dataclass(frozen=True)
class Memory:
    """What the job needs, beside what the workers have that were running when it was checked."""

    needs: MemoryNeed
    workers: list[WorkerRoom]


def rooms(need: MemoryNeed, workers: Mapping[str, DeviceMemory | None]) -> list[WorkerRoom]:
    """Which of the workers, by their ids, fit."""
    return [_room(need, id, found) for id, found in workers.items()]


def _room(need: MemoryNeed, id: str, found: DeviceMemory | None) -> WorkerRoom:
    if found is None:
        return WorkerRoom(id, None, None, None, None)
    return WorkerRoom(id, found.device, found.total_bytes, found.free_bytes, need.training_bytes <= found.free_bytes)


def has_room(memory: Memory) -> bool:
    """False where every worker that holds the base is known to have too little; True where nobody knows."""
    return not memory.workers or any(worker.fits is not False for worker in memory.workers)
