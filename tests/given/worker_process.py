"""A worker in a process of its own, on the installation of a test; killed with all below it when the test is done."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.installation.context import Context
from tests.given.running_service import ROOT

PASSED_ON = ("data_dir", "catalogue", "engine_urls", "slots", "slot_steps", "lease_seconds", "trainer_threads", "bases")


@asynccontextmanager
async def worker_process(ctx: Context, module: str = "workers", **environment: str) -> AsyncIterator[Process]:
    """`luthier-worker train` with the settings of `ctx`; `environment` has more variables."""
    settings = {f"LUTHIER_{name.upper()}": str(getattr(ctx.settings, name)) for name in PASSED_ON}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, "train", "--die-with-parent"),
        cwd=ROOT,
        env=os.environ | settings | environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill_worker(process)
        await process.wait()


def kill_worker(process: Process) -> None:
    """kill -9; its trainer ends by itself, as after any loss of its parent."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
