"""A real trainer process under its handle, and what the stay of a job in it came to."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.recipes.base import Base
from workers.trainer.launch import MODULE, TrainerConfig
from workers.trainer.parent.handle import TrainerHandle
from workers.trainer.protocol import Checkpointed, Crashed, Report, Snapshotted

LEASE_SECONDS = 20.0
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
Bits = tuple[bytes, ...]


@dataclass
class Outcome:
    """What a job's reports came to."""

    reports: list[Report | Crashed] = field(default_factory=list)
    charged: int = 0

    def of(self, kind: type) -> list[Any]:
        return [report for report in self.reports if isinstance(report, kind)]

    @property
    def bits(self) -> Bits:
        return read_bits(Path(self.of(Checkpointed)[-1].folder))


@asynccontextmanager
async def trainer(
    base: Base, module: str = MODULE, lease_seconds: float = LEASE_SECONDS
) -> AsyncIterator[TrainerHandle]:
    """A trainer that is kept alive by beats."""
    config = TrainerConfig(base=base, device="cpu", threads=1, turn_tokens=100, lease_seconds=lease_seconds)
    handle = TrainerHandle([sys.executable, "-m", module, config.model_dump_json()], backoff_seconds=0.05)
    beating = asyncio.create_task(beat(handle, lease_seconds / 4))
    try:
        yield handle
    finally:
        beating.cancel()
        await handle.stop()


async def beat(handle: TrainerHandle, seconds: float) -> None:
    while True:
        await handle.beat()
        await asyncio.sleep(seconds)


async def run(handle: TrainerHandle, folder: Path, watch: Callable[[Report | Crashed], None] | None = None) -> Outcome:
    """One stay in a slot, to its end."""
    outcome = Outcome()
    async with asyncio.timeout(120):
        async for report in handle.seat(folder.name, folder):
            outcome.reports.append(report)
            if watch is not None:
                watch(report)
    return outcome


async def run_through_crashes(
    handle: TrainerHandle, folder: Path, watch: Callable[[Report | Crashed], None] | None = None
) -> Outcome:
    """As `workers.jobs.train` does it: again from the last snapshot, until the end or three crashes of its own."""
    whole = Outcome()
    while True:
        stay = await run(handle, folder, watch)
        whole.reports += stay.reports
        whole.charged += sum(crash.guilty for crash in stay.of(Crashed))
        if not stay.of(Crashed) or whole.charged == 3:
            return whole
        if snapshots := stay.of(Snapshotted):
            shutil.rmtree(folder / "resume", ignore_errors=True)
            shutil.copytree(snapshots[-1].folder, folder / "resume")


def read_bits(folder: Path) -> Bits:
    return tuple((folder / name).read_bytes() for name in ADAPTER_FILES)
