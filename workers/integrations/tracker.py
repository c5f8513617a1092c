"""A job's integrations on its worker's side: a child process for each, which the job never waits for.

Called by `workers.jobs.train` and `workers.jobs.announce`. Failures never affect the job: an integration that is
unavailable, refused or too slow becomes one warning event. The client itself is in `wandb_child`.
"""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Collection
from pathlib import Path

import structlog
from pydantic import BaseModel

from service.domain import event as wording
from service.domain.errors import LeaseLost, Unavailable
from service.domain.job import FINAL, Job
from service.operations import lookups
from service.operations.progress import HeldJob
from service.processes.child import kill_group, start_child
from service.settings.settings import Settings
from workers.integrations.wandb_child import FINISH_SECONDS, INIT_SECONDS, End, Opened, Start, Step

log = structlog.get_logger()
COMMAND = [sys.executable, "-m", "workers.integrations.wandb_child"]
WAITING_LINES = 10_000  # for a client that does not read; further ones are dropped
IMPORT_SECONDS = 60.0
TAG_CHARACTERS = 64
STOP_SECONDS = 10.0  # when the worker stops


class Tracker:
    """The integrations of one claim; none where the job has none or no key is configured."""

    def __init__(self, held: HeldJob, runs: set["Run"]) -> None:
        self._ctx = held.ctx
        self._held = held
        self._open = runs  # of the whole worker
        self._runs: list[Run] = []

    async def start(self) -> None:
        """Starts a run for each integration, and sends it the steps that an earlier attempt may not have sent."""
        job = self._held.job
        if not job.integrations or not self._ctx.settings.wandb_api_key.get_secret_value():
            return  # the user was warned of the missing key when the job was created
        before = [run.ended for run in self._open if run.job_id == job.id]
        for number, integration in enumerate(job.integrations):
            run = Run(
                self._held,
                _start(self._ctx.settings.scratch_dir / "wandb", job, integration["wandb"], number),
                number,
                before,
            )
            self._runs.append(run)
            self._open.add(run)
            run.ended.add_done_callback(lambda _, run=run: self._open.discard(run))  # type: ignore[misc]
        if job.publication is not None:
            return  # it has trained: that attempt has sent its steps
        for metrics in await lookups.metrics_of(self._ctx, job.id, WAITING_LINES // 2):
            self.step(metrics)

    def step(self, metrics: dict[str, int | float]) -> None:
        """Sends the metrics of one step."""
        for run in self._runs:
            run.send(Step(metrics=metrics))

    async def before_the_end(self) -> None:
        """Writes pending warnings: no event can be added to a job that has ended."""
        for run in self._runs:
            await run.warn_of_problems()

    async def end(self) -> None:
        """Sends the job's status; the runs end by themselves. Raises nothing but CancelledError."""
        if not self._runs:
            return
        try:
            superseded = await lookups.is_superseded(self._ctx, self._held.claim)
            job = None if superseded else await lookups.find_job(self._ctx, self._held.job.id)
        except Unavailable:
            job = None
        for run in self._runs:
            if job is not None:
                run.send(End(status=job.status, final=job.status in FINAL, fine_tuned_model=job.fine_tuned_model))
            run.close()


class Run:
    """One child process and its queue of lines; it starts when those of an earlier claim have ended."""

    def __init__(self, held: HeldJob, start: Start, number: int, before: Collection[asyncio.Task[None]]) -> None:
        self.job_id = held.job.id
        self._before = before
        self._settings = held.ctx.settings
        self._held = held
        self._key = f"integrations-{number}"
        self._lines: asyncio.Queue[BaseModel | None] = asyncio.Queue(WAITING_LINES)
        self._lines.put_nowait(start)
        self._opened = False
        self._lost = 0
        self.ended = asyncio.create_task(self._live())

    def send(self, line: BaseModel) -> None:
        """Queues one line for the child without waiting; dropped where the child has ended or the queue is full."""
        if self.ended.done():
            return
        try:
            self._lines.put_nowait(line)
        except asyncio.QueueFull:
            self._lost += 1

    def close(self) -> None:
        """Ends the input of the child."""
        while self._lines.full():
            self._lines.get_nowait()
            self._lost += 1
        self._lines.put_nowait(None)

    async def warn_of_problems(self) -> None:
        if not self._opened:
            await self._warn("it had not responded when the training ended")
        elif self._lost:
            await self._warn(f"it was too slow, and {self._lost} lines were not sent")

    async def _live(self) -> None:
        if self._before:
            await asyncio.wait(self._before)  # two clients of one run at a time would write over each other
        try:
            process = await start_child(COMMAND, _environment(self._settings), stdout=PIPE, stderr=DEVNULL)
        except OSError as error:
            await self._warn(f"its client could not be started: {error.strerror}")
            return
        feeding = asyncio.create_task(self._feed(process))
        try:
            if await self._is_open(process):
                await feeding
                async with asyncio.timeout(FINISH_SECONDS + 10):
                    await process.wait()
        except TimeoutError:
            log.warning("integration.unfinished", job_id=self._held.job.id)
        finally:
            feeding.cancel()
            kill_group(process)
            await process.wait()
            log.info("integration.ended", job_id=self._held.job.id, code=process.returncode, lost=self._lost)

    async def _is_open(self, process: Process) -> bool:
        """Whether the child has opened its run; warns the user where it has not."""
        assert process.stdout is not None
        try:
            async with asyncio.timeout(IMPORT_SECONDS + INIT_SECONDS):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
        self._opened = True
        problem = Opened.model_validate_json(line).problem if line else "its client did not respond"
        if problem is not None:
            await self._warn(problem)
        return problem is None

    async def _feed(self, process: Process) -> None:
        assert process.stdin is not None
        try:
            while (line := await self._lines.get()) is not None:
                process.stdin.write(line.model_dump_json().encode() + b"\n")
                await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return  # the child has ended and has reported why
        finally:
            process.stdin.close()

    async def _warn(self, problem: str) -> None:
        text = f"Weights & Biases is not kept up to date for this job ({problem}); the job continues."
        log.warning("integration.problem", job_id=self._held.job.id, problem=problem)
        try:
            await self._held.warn(wording.warning(text, key=self._key))
        except (LeaseLost, Unavailable):
            return  # the job has ended, or another worker has it


async def let_finish(runs: Collection[Run], seconds: float = STOP_SECONDS) -> None:
    """Waits for runs whose jobs this worker has released; ends those that take longer than `seconds`."""
    waiting = [run.ended for run in runs]
    if waiting:
        _, late = await asyncio.wait(waiting, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _start(folder: Path, job: Job, wandb: dict[str, object], number: int) -> Start:
    own = ["luthier/finetune", f"luthier/{job.base}", f"luthier/{job.id}"]
    given = wandb.get("tags") or []
    assert isinstance(given, list)
    return Start(
        id=job.id if number == 0 else f"{job.id}-{number}",  # the same for every claim: one run per job and integration
        project=str(wandb["project"]),
        entity=None if wandb.get("entity") is None else str(wandb["entity"]),
        name=str(wandb.get("name") or job.id),
        tags=[tag[:TAG_CHARACTERS] for tag in [*given, *own]],
        config={
            "job": job.id,
            "base": job.base,
            "model": job.parent_model or job.base,
            "method": job.objective,
            "hyperparameters": job.hyperparameters,
            "tuning": job.tuning,
            "seed": job.seed,
            "training_file": job.training_file,
            "validation_file": job.validation_file,
        },
        folder=folder,
    )


def _environment(settings: Settings) -> dict[str, str]:
    given = {"WANDB_API_KEY": settings.wandb_api_key.get_secret_value(), "WANDB_ERROR_REPORTING": "false"}
    if settings.wandb_base_url:
        given["WANDB_BASE_URL"] = settings.wandb_base_url
    return os.environ | given
