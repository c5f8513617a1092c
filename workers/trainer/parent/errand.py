"""One task with a base in a process of its own, which ends with it: an adapter is examined, or merged into its base.

Beside the trainer, which keeps its base as it is and its memory for jobs. The task is a file in a folder, and so is
what it found; the process sees nothing else. Bytes of strangers that crash it end nobody else.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import structlog
from pydantic import ValidationError

from service.domain.errors import JobError
from service.processes.child import kill_group
from service.processes.forks import start_fork
from workers.trainer.errands import ORDER, RESULT, Order, Result
from workers.trainer.launch import trainer_environment

R = TypeVar("R", bound=Result)
log = structlog.get_logger()
LIMIT_SECONDS = 6 * 3600.0


class ErrandCrashed(Exception):
    """The process ended, or was ended, before it had found anything."""


async def run_errand(module: str, order: Order, folder: Path, result: type[R]) -> R:
    """Runs `python -m module FOLDER` and returns what it found. Raises ErrandCrashed, and the JobError of a refusal."""
    await asyncio.to_thread((folder / ORDER).write_text, order.model_dump_json(), encoding="utf-8")
    await _run([sys.executable, "-m", module, str(folder)])
    try:
        found = result.model_validate_json(await asyncio.to_thread((folder / RESULT).read_bytes))
    except (FileNotFoundError, ValidationError) as error:
        raise ErrandCrashed(module) from error
    if found.refusal is not None:
        raise JobError(found.refusal.code, found.refusal.message, found.refusal.param)
    return found


async def _run(command: Sequence[str]) -> None:
    process = await start_fork(command, trainer_environment())
    log.info("errand.started", pid=process.pid, module=command[2])
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            code = await process.wait()
        log.info("errand.ended", pid=process.pid, code=code)
    except TimeoutError as error:
        raise ErrandCrashed(command[2]) from error
    finally:
        if process.stdin is not None:
            process.stdin.close()
        kill_group(process)
