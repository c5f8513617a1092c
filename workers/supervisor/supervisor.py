"""One worker: woken by the queue, it claims work of the kinds that it runs, and renews its leases.

Every third of a lease it renews all leases that it holds, and only then extends the life of its trainers: when it is
killed, frozen or cut off from the database, its trainers end before another worker can claim their jobs. The table of
what it runs is in `workers.supervisor.kinds`; who is next is decided in `service.work`.
"""

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from service.domain import ids
from service.domain.errors import LeaseLost, Unavailable
from service.domain.work import WorkerState
from service.installation.context import Context
from service.storage import StorageError
from service.work import claims
from service.work.held import HeldWork
from workers.integrations.tracker import let_finish
from workers.jobs.check_processes import CheckProcesses
from workers.jobs.loading import BaseNotLoaded, Tokenizers
from workers.supervisor.kinds import Parts, Runner, runners
from workers.supervisor.residence import Residence
from workers.supervisor.trainers import Trainers

log = structlog.get_logger()
STOP_SECONDS = 20.0
# How many times `slot_steps` a job keeps its slot before it makes room for another base, which takes long to load.
BASE_CHANGE_STAYS = 10


@dataclass(frozen=True, eq=False)
class Running:
    """Held work and the coroutine that does it."""

    held: HeldWork[Any]
    runner: Runner[Any]
    task: asyncio.Task[None]

    @property
    def base(self) -> str | None:
        return self.held.claim.work.base


class Supervisor:
    """Claims what it has room for; `run` returns after a signal, when everything is released."""

    def __init__(self, ctx: Context, trainers: dict[str, Trainers], scratch: Path) -> None:
        tokenizers = Tokenizers()
        self._ctx = ctx
        self._residence = Residence(trainers, ctx.catalogue, tokenizers, ctx.queue.put)
        processes = CheckProcesses(ctx.settings.check_processes)
        self._parts = Parts(ctx, self._residence, scratch, tokenizers, processes, set())
        self._owner = ids.worker_id()
        self._running: dict[str, Running] = {}  # by work id, the longest-held first
        self._leaving: set[str] = set()
        self._runners = runners()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Serves until SIGINT or SIGTERM."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        log.info("worker.started", worker=self._owner, bases=",".join(self._residence.bases))
        loading = asyncio.create_task(self._residence.keep_ready())
        serving = asyncio.create_task(self._ctx.queue.serve(self._look))
        beating = asyncio.create_task(self._beat())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({loading, serving, beating, stopping}, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        await self._release()
        for task in (loading, beating, stopping):
            task.cancel()
        await asyncio.gather(let_finish(self._parts.integrations), self._residence.stop())
        await asyncio.wait({serving, loading}, timeout=STOP_SECONDS)  # the queue may still have to close its connection
        for task in (loading, serving, beating):
            if task.done() and not task.cancelled():
                task.result()  # raises what ended it: a bug ends the worker with a traceback

    def stop(self) -> None:
        """Asks `run` to return, as a signal does."""
        self._stopping.set()

    async def _look(self) -> None:
        """Claims as much as fits, and makes room for projects that hold less; called whenever the queue wakes it."""
        try:
            waiting = await claims.claimable_kinds(self._ctx, [runner.kind for runner in self._runners])
            for runner in self._runners:
                running = self._of(runner)
                if runner.look is not None:
                    await runner.look(self._parts, [one.held for one in running])
                while runner.kind.name in waiting and await self._claim(runner):
                    pass
                if runner.leave is not None:
                    await self._make_room(runner, runner.leave)
        except Unavailable:
            log.warning("worker.database_unavailable")

    def _of(self, runner: Runner[Any]) -> list[Running]:
        return [one for one in self._running.values() if one.runner is runner]

    def _bases(self, runner: Runner[Any]) -> list[str]:
        """The bases for which another piece of this work may be claimed."""
        bases = self._residence.usable if runner.loads_base else self._residence.bases
        if not runner.per_base:
            return bases
        counts = Counter(one.base for one in self._of(runner))
        return [base for base in bases if counts[base] < runner.at_once(self._ctx.settings)]

    def _is_full(self, runner: Runner[Any]) -> bool:
        return not runner.per_base and len(self._of(runner)) >= runner.at_once(self._ctx.settings)

    def _resident(self, runner: Runner[Any]) -> str | None:
        """The base that the trainer must keep, because work of it has a slot; None where the base may change."""
        return next((one.base for one in self._of(runner)), None) if runner.leave is not None else None

    def _may_take_suspects(self) -> bool:
        """Work that crashed repeatedly is held one piece at a time: whether none is held now."""
        return not any(one.held.suspect for one in self._running.values())

    async def _claim(self, runner: Runner[Any]) -> bool:
        """Claims the next piece of this work; False when there is no room or no work."""
        if self._is_full(runner):
            return False
        claim = await claims.claim(
            self._ctx,
            runner.kind,
            self._owner,
            self._bases(runner),
            resident=self._resident(runner),
            suspects=self._may_take_suspects(),
        )
        if claim is None:
            return False
        held = runner.hold(self._ctx, claim)
        task = asyncio.create_task(self._guard(held, runner))
        self._running[held.id] = one = Running(held, runner, task)
        task.add_done_callback(partial(self._ended, one))
        return True

    async def _make_room(self, runner: Runner[Any], leave: Callable[[Parts, Any], Any]) -> None:
        """Asks work to leave its slot for a project that holds less; repeated at every look until it has left."""
        steps = self._ctx.settings.slot_steps
        staying = [one for one in self._of(runner) if one.held.id not in self._leaving]
        ripe = [one.held.id for one in staying if one.held.steps >= steps]
        if ripe:
            self._leaving |= set(
                await claims.make_room(
                    self._ctx,
                    runner.kind,
                    self._owner,
                    self._bases(runner),
                    ripe=ripe,
                    long_ripe=[one.held.id for one in staying if one.held.steps >= BASE_CHANGE_STAYS * steps],
                    resident=self._resident(runner),
                    full=self._is_full(runner),
                    suspects=self._may_take_suspects(),
                )
            )
        for one in self._of(runner):
            if one.held.id in self._leaving:
                await leave(self._parts, one.held)

    def _ended(self, one: Running, task: asyncio.Task[None]) -> None:
        if self._running.get(one.held.id) is one:  # otherwise it has been claimed again
            self._running.pop(one.held.id)
            self._leaving.discard(one.held.id)
        subject = one.held.claim.work.subject_id
        asyncio.get_running_loop().create_task(self._ctx.queue.put(subject))  # there is room again: wake up

    async def _guard(self, held: HeldWork[Any], runner: Runner[Any]) -> None:
        """Runs a piece of work; every exception ends here, written to its row or to the log."""
        fields = {"kind": runner.kind.name, "subject": held.claim.work.subject_id}
        try:
            await runner.run(self._parts, held)
        except LeaseLost:
            log.info("work.let_go", attempt=held.attempt, **fields)
        except (Unavailable, StorageError) as error:
            log.warning("work.postponed", reason=type(error).__name__, **fields)
            await self._let_go(held.postpone, fields)
        except BaseNotLoaded as error:
            self._residence.failed(error)
            await self._let_go(held.postpone, fields)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("work.broken", **fields)
            await self._let_go(held.abandon, fields)

    async def _let_go(self, write: Callable[[], Any], fields: dict[str, str]) -> None:
        try:
            await write()
        except (LeaseLost, Unavailable):
            log.warning("work.left_to_its_lease", **fields)

    async def _beat(self) -> None:
        while True:
            before = list(self._running.values())  # work that is claimed during the renewal is not lost
            worker = WorkerState(self._owner, socket.gethostname(), self._residence.states, self._residence.memory)
            try:
                still = await claims.renew(self._ctx, worker, [one.held for one in before])
            except Unavailable:
                log.warning("worker.database_unavailable")  # no beat: the trainers end before their leases do
            else:
                for one in before:
                    if one.held.id not in still:
                        one.task.cancel()
                await self._residence.beat()
            await asyncio.sleep(self._ctx.settings.lease_seconds / 3)

    async def _release(self) -> None:
        """Snapshots what has a slot, then releases everything."""
        for one in list(self._running.values()):
            if one.runner.leave is not None:
                await one.runner.leave(self._parts, one.held)
            else:
                one.task.cancel()
        tasks = [one.task for one in self._running.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await claims.release_all(self._ctx, self._owner)
