"""What this worker runs: one table, kind of work -> (how many at once, what runs it). Another kind is one entry.

An extension adds its entry with `register`, in the module that its kind names (`service.work.kinds`). Claims and
leases are the supervisor's.
"""

import importlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from service.domain.work import Claim
from service.installation.context import Context
from service.operations import progress
from service.operations.check_work import CHECK, HeldCheck
from service.operations.import_work import ANNOUNCE_IMPORT, IMPORT, HeldImport
from service.operations.job_work import ANNOUNCE, TRAIN, VALIDATE
from service.operations.merge_work import MERGE, HeldMerge
from service.operations.progress import HeldJob
from service.settings.settings import Settings
from service.work import kinds
from service.work.held import HeldWork
from service.work.kinds import Kind
from workers.integrations.tracker import Run, Tracker
from workers.jobs.announce import JobAnnouncement
from workers.jobs.announce_import import ImportAnnouncement
from workers.jobs.check import CheckRun
from workers.jobs.check_processes import CheckProcesses
from workers.jobs.import_adapter import AdapterImport
from workers.jobs.loading import Tokenizers
from workers.jobs.merge import ModelMerging
from workers.jobs.train import JobRun
from workers.jobs.validate import JobValidation
from workers.supervisor.residence import Residence

H = TypeVar("H", bound=HeldWork[Any])
ERRANDS = 1  # each has a base in memory for a while
ANNOUNCEMENTS = 8  # of one base at a time: an engine that is unavailable for long must not fill the worker


@dataclass(frozen=True)
class Parts:
    """What a worker provides to everything that it runs."""

    ctx: Context
    residence: Residence
    scratch: Path
    tokenizers: Tokenizers
    check_processes: CheckProcesses
    integrations: set[Run]  # they may end after their jobs


@dataclass(frozen=True)
class Runner(Generic[H]):
    """How one kind of work is done here.

    `run` ends the work, gives it back, or raises: LeaseLost, Unavailable, StorageError and BaseNotLoaded postpone it,
    anything else ends it in error. `hold` makes the argument of `run` from a claim. `at_once` counts per base with
    `per_base`. `loads_base`: only bases that this worker can load. `leave`: the work has a slot in a trainer, which
    holds one base at a time; when called, it gives the slot back after its current step. `look` is called at every
    look with what is running.
    """

    kind: Kind[Any]
    at_once: Callable[[Settings], int]
    run: Callable[[Parts, H], Coroutine[None, None, None]]
    hold: Callable[[Context, Claim[Any]], H]
    per_base: bool = False
    loads_base: bool = False
    leave: Callable[[Parts, H], Awaitable[None]] | None = None
    look: Callable[[Parts, Sequence[H]], Awaitable[None]] | None = None


async def _validate(parts: Parts, held: HeldJob) -> None:
    base = parts.ctx.catalogue.bases[held.job.base]
    await JobValidation(held, base, parts.tokenizers, parts.scratch, parts.check_processes).run()


async def _check(parts: Parts, held: HeldCheck) -> None:
    base = parts.ctx.catalogue.bases[held.check.base]
    await CheckRun(held, base, parts.tokenizers, parts.scratch, parts.check_processes).run()


async def _announce(parts: Parts, held: HeldJob) -> None:
    tracker = Tracker(held, parts.integrations)
    await JobAnnouncement(held, parts.ctx.catalogue.bases[held.job.base], tracker).run()


async def _import(parts: Parts, held: HeldImport) -> None:
    await AdapterImport(held, parts.ctx.catalogue.bases[held.imported.base], parts.scratch).run()


async def _announce_import(parts: Parts, held: HeldImport) -> None:
    await ImportAnnouncement(held, parts.ctx.catalogue.bases[held.imported.base]).run()


async def _merge(parts: Parts, held: HeldMerge) -> None:
    await ModelMerging(held, parts.ctx.catalogue.bases[held.merge.base], parts.scratch).run()


async def _train(parts: Parts, held: HeldJob) -> None:
    base = parts.ctx.catalogue.bases[held.job.base]
    trainers = await parts.residence.move_in(base.id)
    async with trainers.place() as trainer:
        await JobRun(held, base, trainer, parts.scratch, Tracker(held, parts.integrations)).run()


async def _leave_slot(parts: Parts, held: HeldJob) -> None:
    await parts.residence[held.job.base].leave(held.job.id)


async def _pause(parts: Parts, running: Sequence[HeldJob]) -> None:
    """Pauses the jobs whose users asked for it; called at every look, because a job may not be in its slot yet."""
    by_id = {held.job.id: held for held in running}
    if by_id:
        for job_id in await progress.pauses_asked(parts.ctx, list(by_id)):
            await parts.residence[by_id[job_id].job.base].pause(job_id)


_runners: dict[str, Runner[Any]] = {}


def register(runner: Runner[H]) -> None:
    """Makes the kind one that workers run. Raises ValueError where another runner has it."""
    if runner.kind.name in _runners:
        raise ValueError(f"There are two runners of the kind of work '{runner.kind.name}'.")
    _runners[runner.kind.name] = runner


def runners() -> list[Runner[Any]]:
    """In the order in which a worker claims. Raises ImportError where an extension's module cannot be imported."""
    for kind in kinds.known():
        if kind.module and kind.name not in _runners:
            importlib.import_module(kind.module)
    return list(_runners.values())


register(Runner(VALIDATE, lambda settings: settings.validations, _validate, HeldJob, loads_base=True))
register(Runner(CHECK, lambda settings: settings.validations, _check, HeldCheck, loads_base=True))
register(Runner(ANNOUNCE, lambda _: ANNOUNCEMENTS, _announce, HeldJob, per_base=True))
register(
    Runner(TRAIN, lambda settings: settings.slots, _train, HeldJob, loads_base=True, leave=_leave_slot, look=_pause)
)
register(Runner(IMPORT, lambda _: ERRANDS, _import, HeldImport, loads_base=True))
register(Runner(ANNOUNCE_IMPORT, lambda _: ANNOUNCEMENTS, _announce_import, HeldImport, per_base=True))
register(Runner(MERGE, lambda _: ERRANDS, _merge, HeldMerge, loads_base=True))
