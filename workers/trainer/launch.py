"""How a trainer is started: its settings, its command line, and what its exit codes mean.

Shared by the parent's side (`handle`) and the child's (`process`); imports nothing heavy.
"""

import os
import sys

from pydantic import BaseModel, ConfigDict

from service.recipes.base import Base
from service.settings.settings import Settings

EXIT_PARENT_GONE = 0  # stdin ended: the parent stopped the trainer, or died
EXIT_PARENT_SILENT = 71  # no beat for SILENCE of a lease
SILENCE = 0.8  # of a lease: the trainer is gone before the lease can pass to another worker
MODULE = "workers.trainer.process.loop"
_ENVIRONMENT = {
    # Threads of OpenMP that wait by spinning take the processor from others and from each other: on a busy machine of
    # two cores a small model's step took 590 ms with the default and 15 ms with this.
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS gives the same bits again only with a fixed workspace
}


class TrainerConfig(BaseModel):
    """Everything that a trainer is told, as JSON in its first argument."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Base
    device: str
    threads: int
    turn_tokens: int
    lease_seconds: float


def trainer_environment() -> dict[str, str]:
    """The environment variables of the child: torch's libraries read them when they are loaded. Ours give way."""
    return _ENVIRONMENT | os.environ


def trainer_command(settings: Settings, base: Base) -> list[str]:
    """The command line of the trainer of `base`."""
    config = TrainerConfig(
        base=base,
        device=settings.device,
        threads=settings.trainer_threads,
        turn_tokens=settings.turn_tokens,
        lease_seconds=settings.lease_seconds,
    )
    return [sys.executable, "-m", MODULE, config.model_dump_json()]
