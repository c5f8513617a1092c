"""How a trainer is started: its settings, its command line, and what its exit codes mean.

Used on the parent's side (`parent`) and the child's (`process`); imports no torch.
"""

import os
import sys

from pydantic import BaseModel, ConfigDict

from service.processes.forks import LIBRARY_ENVIRONMENT
from service.recipes.base import Base
from service.settings.settings import Settings

EXIT_PARENT_GONE = 0  # stdin ended: the parent stopped the trainer, or died
EXIT_PARENT_SILENT = 71  # no beat for SILENCE of a lease
SILENCE = 0.8  # of a lease: the trainer has ended before another worker can take the lease
MODULE = "workers.trainer.process.loop"


class TrainerConfig(BaseModel):
    """The settings of a trainer, as JSON in its first argument."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Base
    device: str
    threads: int  # 0: by the base's size
    turn_tokens: int
    lease_seconds: float


def trainer_environment() -> dict[str, str]:
    """The environment variables of the child, read when torch's libraries load. Those of the caller take precedence."""
    return LIBRARY_ENVIRONMENT | os.environ


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
