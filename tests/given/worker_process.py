"""A worker in a process of its own, on the installation of a test; killed with all below it when the test is done.

Forked where the test asks for `forks`, which is a matter of a second instead of ten.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.installation.context import Context
from service.processes.child import ChildProcess
from service.processes.forks import start_fork

STOP_SECONDS = 60
PASSED_ON = (
    "data_dir", "catalogue", "engine_urls", "slots", "slot_steps", "lease_seconds", "trainer_threads", "trainers",
    "bases",
)  # fmt: skip


@asynccontextmanager
async def worker_process(ctx: Context, module: str = "workers", **environment: str) -> AsyncIterator[ChildProcess]:
    """`luthier-worker train` with the settings of `ctx`; `environment` has more variables."""
    settings = {f"LUTHIER_{name.upper()}": str(getattr(ctx.settings, name)) for name in PASSED_ON}
    command = [sys.executable, "-m", module, "train", "--die-with-parent"]
    process = await start_fork(command, os.environ | settings | environment)
    try:
        yield process
    finally:
        kill_worker(process)
        await process.wait()


def kill_worker(process: ChildProcess) -> None:
    """kill -9; its trainer ends by itself, as after any loss of its parent."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)


async def stop_worker(process: ChildProcess) -> None:
    """Asks it to stop and waits until it has: it releases what it holds, which counts as no crash."""
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(STOP_SECONDS):
        await process.wait()
