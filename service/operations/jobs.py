"""Fine-tuning jobs as their users see them: create, read, pause, cancel. The worker's side is `operations.progress`.

A job starts from a base of the catalogue, or from a tuned model of its project. Creation refuses whatever could only
fail hours later; after the commit, workers are notified of the job.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from service.db import bases, events, files, jobs, keys, model_aliases, models, work
from service.db.connection import Transaction
from service.domain import event as wording
from service.domain import ids
from service.domain.check import CheckResult
from service.domain.errors import InvalidRequest, NotFound
from service.domain.event import Event, NewEvent
from service.domain.file import TRAINING_PURPOSE
from service.domain.job import FINAL, Checkpoint, Job, Status, check_resumable, check_transition
from service.domain.json import JsonObject
from service.domain.model import check_suffix
from service.installation.context import Context
from service.operations import aliases, checked, makers, quotas
from service.operations.job_work import TRAIN, VALIDATE
from service.operations.keys import Caller
from service.operations.paging import Page, cut
from service.recipes.base import Base
from service.recipes.objective import OBJECTIVES, Hyperparameters, check_trainable, find_objective
from service.recipes.recipe import check_goes_with
from service.recipes.safeguards import Safeguards, check_safeguards
from service.recipes.served_form import AskedForm, ServedForm, resolved_form
from service.recipes.tuning import TUNINGS, TuningSettings, check_servable, continued_tuning

NAMES_SHOWN = 10
QUEUE_LIMIT = 1000  # how far places in the queue are counted


@dataclass(frozen=True)
class NewJob:
    """What a user asks for: well-formed, but not yet checked against the installation."""

    model: str
    training_file: str
    seed: int
    validation_file: str | None = None
    suffix: str | None = None
    objective: str = OBJECTIVES.default.name
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)
    tuning: TuningSettings | None = None  # None: the parent's, or the default
    served_form: AskedForm | None = None  # None: the parent's, or as it is trained
    metadata: dict[str, str] | None = None
    integrations: list[JsonObject] = field(default_factory=list)
    check: str | None = None  # that was made of this job: its files are not validated again
    idle_methods: tuple[str, ...] = ()  # sub-objects of `method` that its type does not read
    safeguards: Safeguards = field(default_factory=Safeguards)


@dataclass(frozen=True)
class JobView:
    """A job, and how many older ones wait for a slot of its base (None unless it is queued itself).

    Counted over all projects, up to QUEUE_LIMIT. A job may start before older ones of a project that holds more slots.
    `announce_seconds` is what the last announcement of its base took, for a job that runs; 0 where none is known.
    """

    job: Job
    queue_position: int | None = None
    announce_seconds: float = 0.0


@dataclass(frozen=True)
class CheckpointView:
    """A checkpoint, and the objective of its job."""

    checkpoint: Checkpoint
    objective: str


@dataclass(frozen=True)
class NextEvents:
    """Events that a follower of a job has not seen yet; `ended`: no event will follow these."""

    events: Sequence[Event]
    ended: bool


@dataclass(frozen=True)
class Origin:
    """What a new job starts from: a base, or a tuned model of its project, whose weights it continues.

    `alias`: what the caller said for the base, or what the parent is named after; None for the base's id.

    `parent` and the tuning that made it are None for a job that starts from the base itself."""

    base: Base
    alias: str | None = None
    parent: str | None = None
    parent_tuning: TuningSettings | None = None
    parent_form: ServedForm | None = None  # in which the parent is served
    model_alias: str | None = None  # the project's alias that the caller said, and that was resolved to this

    def tuning(self, asked: TuningSettings | None) -> TuningSettings:
        """The job's tuning, resolved: what was asked for, the parent's, or the default. Raises InvalidRequest."""
        if self.parent_tuning is not None:
            return continued_tuning(self.parent_tuning, asked)
        return asked or TUNINGS.default()


@dataclass(frozen=True)
class Resolved:
    """What of a request is fixed before its files are read."""

    origin: Origin
    tuning: TuningSettings
    served_form: ServedForm | None

    @property
    def stored_tuning(self) -> JsonObject:
        """For a row of the database."""
        return self.tuning.stored() | ({} if self.served_form is None else self.served_form.stored())


async def create(ctx: Context, caller: Caller, new: NewJob) -> JobView:
    """Writes the job and its first events, then notifies workers. Raises InvalidRequest."""
    async with ctx.database.transaction() as tx:
        found = await resolve(ctx, tx, caller, new)
        origin = found.origin
        job = _job(caller, await keys.name_of(tx, caller.key_id), origin, new, found.stored_tuning)
        told = [wording.created(job.id)]
        if new.check is not None:
            job, taken = await checked.take_over(tx, ctx.settings, origin.base, job, new.check)
            told += [wording.taken_over(new.check), *_of_check(taken)]
        await quotas.check_job(ctx, tx, caller)
        await jobs.add(tx, job)
        kind = VALIDATE if job.status == "validating_files" else TRAIN
        await work.add(tx, kind.name, job.id, job.project_id, job.base)
        if origin.model_alias is not None:
            told.append(wording.resolved_alias(origin.model_alias, origin.parent or origin.base.id))
        told += _warnings(new, has_wandb=bool(ctx.settings.wandb_api_key.get_secret_value()))
        await events.add(tx, job.id, told)
        tx.after_commit(lambda: ctx.queue.put(job.id))
    return JobView(job)


async def resolve(ctx: Context, tx: Transaction, caller: Caller, new: NewJob) -> Resolved:
    """What the job starts from and trains; nobody deletes its files before this transaction ends.

    Raises InvalidRequest for whatever could only fail later.
    """
    _check_entities(ctx, new)
    origin = await _find_origin(ctx, tx, caller, new.model)
    tuning = origin.tuning(new.tuning)
    check_trainable(origin.base, find_objective(new.objective), new.hyperparameters.model_dump())
    check_goes_with(find_objective(new.objective), tuning)
    form = resolved_form(origin.base, tuning, new.served_form, origin.parent_form)
    if form is None:
        check_servable(origin.base, tuning)
    check_suffix(origin.alias or origin.base.id, caller.organization, new.suffix)
    has_validation = new.validation_file is not None
    check_safeguards(new.safeguards, find_objective(new.objective), origin.base, has_validation=has_validation)
    await _check_file(tx, caller, "training_file", new.training_file)
    if new.validation_file is not None:
        await _check_file(tx, caller, "validation_file", new.validation_file)
    return Resolved(origin, tuning, form)


async def retrieve(ctx: Context, caller: Caller, id: str) -> JobView:
    """One job. Raises NotFound, for another project's too."""
    async with ctx.database.reading() as tx:
        return (await _views(tx, [await _find(tx, caller, id)]))[0]


async def page(
    ctx: Context, caller: Caller, *, after: str | None, limit: int, metadata: Mapping[str, str] | None = None
) -> Page[JobView]:
    """Jobs, newest first, older than `after`; with `metadata` only those that carry all of it ({}: that carry none)."""
    async with ctx.database.reading() as tx:
        rows = await jobs.page(tx, caller.project_id, after, limit + 1, metadata)
        found = cut(rows, limit)
        return Page(await _views(tx, found.items), found.has_more)


async def cancel(ctx: Context, caller: Caller, id: str) -> JobView:
    """Ends the job at once; its worker's next write is refused. Raises NotFound or IllegalTransition."""
    async with ctx.database.transaction() as tx:
        held_by = await work.lock(tx, [id])
        job = await _find(tx, caller, id, lock=True)
        check_transition(job, "cancelled")
        cancelled = replace(job, status="cancelled", finished_at=int(time.time()))
        await _change(tx, job, {"status": cancelled.status, "finished_at": cancelled.finished_at})
        await work.remove(tx, [held.id for held in held_by])
        await events.add(tx, id, [wording.cancelled()])
        tx.after_commit(lambda: ctx.queue.put(id))
    return JobView(cancelled)


async def pause(ctx: Context, caller: Caller, id: str) -> JobView:
    """Asks a running job to pause; it stays `running` until its worker has done so. May be called twice.

    Raises NotFound or IllegalTransition. A job that ends before its worker sees the request just ends.
    """
    async with ctx.database.transaction() as tx:
        job = await _find(tx, caller, id, lock=True)
        check_transition(job, "paused")
        if job.pause_requested_at is None:
            await _change(tx, job, {"pause_requested_at": int(time.time())})
            await events.add(tx, id, [wording.pausing()])
        tx.after_commit(lambda: ctx.queue.put(id))
    return JobView(job)


async def resume(ctx: Context, caller: Caller, id: str) -> JobView:
    """Puts a paused job back into the queue; or cancels a pause that has not taken effect yet.

    Raises NotFound or IllegalTransition.
    """
    async with ctx.database.transaction() as tx:
        waiting = await work.lock(tx, [id])
        job = await _find(tx, caller, id, lock=True)
        check_resumable(job)
        if job.status == "running" and job.pause_requested_at is None:
            return JobView(job)  # nothing to cancel
        status: Status = "queued" if job.status == "paused" else job.status
        await _change(tx, job, {"status": status, "pause_requested_at": None})
        await work.wake(tx, [paused.id for paused in waiting])
        await events.add(tx, id, [wording.resumed()])
        tx.after_commit(lambda: ctx.queue.put(id))
        return (await _views(tx, [replace(job, status=status, pause_requested_at=None)]))[0]


async def event_page(ctx: Context, caller: Caller, id: str, *, after: str | None, limit: int) -> Page[Event]:
    """The job's events, newest first, older than `after`. Raises NotFound."""
    async with ctx.database.reading() as tx:
        await _find(tx, caller, id)
        return cut(await events.page(tx, id, after, limit + 1), limit)


async def messages(ctx: Context, caller: Caller, id: str, limit: int) -> Sequence[Event]:
    """What the job has said beside its metrics: at most `limit` events, newest first. Raises NotFound."""
    async with ctx.database.reading() as tx:
        await _find(tx, caller, id)
        return await events.page(tx, id, None, limit, kind="message")


async def event_position(ctx: Context, caller: Caller, id: str, after: str | None) -> int:
    """The number of the event `after`, 0 for None, where a follower begins. Raises NotFound or InvalidRequest."""
    async with ctx.database.reading() as tx:
        await _find(tx, caller, id)
        sequence = 0 if after is None else await events.sequence_of(tx, id, after)
    if sequence is None:
        raise InvalidRequest(f"Job {id} has no event '{after}'; leave it out to begin at the first.", param="after")
    return sequence


async def next_events(ctx: Context, caller: Caller, id: str, sequence: int, limit: int) -> NextEvents:
    """At most `limit` events behind number `sequence`, oldest first. Raises NotFound."""
    async with ctx.database.reading() as tx:
        job = await _find(tx, caller, id)  # before its events: the last of them comes with the final status
        found = await events.since(tx, id, sequence, limit)
    return NextEvents(found, ended=job.status in FINAL and len(found) < limit)


async def checkpoint_page(
    ctx: Context, caller: Caller, id: str, *, after: str | None, limit: int
) -> Page[CheckpointView]:
    """The job's callable checkpoints, newest first, older than `after`. Raises NotFound."""
    async with ctx.database.reading() as tx:
        job = await _find(tx, caller, id)
        found = await models.checkpoint_page(tx, id, after, limit + 1)
        return cut([CheckpointView(checkpoint, job.objective) for checkpoint in found], limit)


async def _find(tx: Transaction, caller: Caller, id: str, *, lock: bool = False) -> Job:
    job = await jobs.find(tx, caller.project_id, id, lock=lock)
    if job is None:
        raise NotFound(f"Could not find fine tune: {id}", param="fine_tuning_job_id", code="fine_tune_not_found")
    return job


async def _change(tx: Transaction, job: Job, values: Mapping[str, Any]) -> None:
    changed = await jobs.change(tx, job.id, job.status, values)
    assert changed, "the job's row was read with a lock"


async def _views(tx: Transaction, found: Sequence[Job]) -> list[JobView]:
    queued = [job.id for job in found if job.status == "queued"]
    positions = await work.waiting_before(tx, TRAIN.name, queued, QUEUE_LIMIT) if queued else {}
    running = {job.base for job in found if job.status == "running"}
    seconds = await bases.announce_seconds(tx, running) if running else {}
    return [JobView(job, positions.get(job.id), seconds.get(job.base, 0.0)) for job in found]


async def _find_origin(ctx: Context, tx: Transaction, caller: Caller, name: str) -> Origin:
    """What `name` stands for, a model alias' own model too. Raises InvalidRequest, as `_origin` does."""
    if await aliases.find_base(ctx, tx, name) is None:
        moving = await model_aliases.find(tx, caller.project_id, name, lock=True)
        if moving is not None:
            return replace(await _origin(ctx, tx, caller, moving.model), model_alias=name)
    return await _origin(ctx, tx, caller, name)


async def _origin(ctx: Context, tx: Transaction, caller: Caller, name: str) -> Origin:
    """What starts from the base or model of that name. Raises InvalidRequest, for deleted and foreign models too."""
    named = await aliases.find_base(ctx, tx, name)
    if named is not None:
        return Origin(named.base, named.alias)
    model = await models.find(tx, caller.project_id, name, lock=True)  # its artifact must outlive the job
    if model is not None and model.deleted_at is None and model.base in ctx.catalogue.bases:
        made = await makers.maker_of(tx, model)
        return Origin(ctx.catalogue.bases[model.base], made.alias, name, made.tuning, made.served_form)
    raise InvalidRequest(
        f"Model {name} is not available for fine-tuning or does not exist. The bases here are: "
        f"{', '.join((await aliases.base_names(ctx, tx))[:NAMES_SHOWN])}.",
        code="model_not_available",
    )


def _check_entities(ctx: Context, new: NewJob) -> None:
    """Every project's runs go to one account of Weights & Biases: a job chooses among what its operator allows."""
    allowed = ctx.settings.allowed_entities
    for index, integration in enumerate(new.integrations):
        entity = integration.get("wandb", {}).get("entity")
        if entity is not None and entity not in allowed and "*" not in allowed:
            offered = f"one of {', '.join(allowed)}" if allowed else "none: leave it out"
            raise InvalidRequest(
                f"This installation does not send runs to the entity '{entity}'. It allows {offered}; "
                "LUTHIER_WANDB_ENTITIES names more.",
                param=f"integrations[{index}].wandb.entity",
                code="invalid_value",
            )


async def _check_file(tx: Transaction, caller: Caller, param: str, id: str) -> None:
    file = await files.find(tx, caller.project_id, id, keep=True)
    if file is None:
        raise InvalidRequest(f"invalid {param}: {id}", param=param)
    if file.purpose != TRAINING_PURPOSE:
        raise InvalidRequest(
            f"invalid {param}: {id} has the purpose '{file.purpose}'; upload it with the purpose 'fine-tune'.",
            param=param,
        )


def _job(caller: Caller, key_name: str, origin: Origin, new: NewJob, tuning: JsonObject) -> Job:
    return Job(
        id=ids.job_id(),
        project_id=caller.project_id,
        base=origin.base.id,
        parent_model=origin.parent,
        alias=origin.alias,
        training_file=new.training_file,
        validation_file=new.validation_file,
        objective=new.objective,
        tuning=tuning,
        hyperparameters=new.hyperparameters.model_dump(),
        seed=new.seed,
        suffix=new.suffix,
        status="validating_files",
        created_at=int(time.time()),
        metadata=new.metadata or None,  # an empty one is none: its jobs are found by an index
        integrations=new.integrations,
        safeguards=new.safeguards.stored(),
        key_id=caller.key_id,
        key_name=key_name,
    )


def _of_check(result: CheckResult) -> list[NewEvent]:
    """What a validation would have warned of; what only a check finds is read there."""
    return [wording.warning(found.message, key=found.code) for found in result.warnings if found.param is None]


def _warnings(new: NewJob, has_wandb: bool) -> list[NewEvent]:
    """What the user should know at once: nothing that was asked for is ignored silently."""
    found = []
    if new.validation_file == new.training_file:
        text = "The validation file is the training file: the validation loss will only repeat the training loss."
        found.append(wording.warning(text, key="same-files"))
    for name in new.idle_methods:
        text = f"'method.{name}' was given, but the method's type is '{new.objective}': it is not used."
        found.append(wording.warning(text, key=f"idle-{name}"))
    if new.integrations and not has_wandb:
        text = "This installation has no key for Weights & Biases; the job continues without its integrations."
        found.append(wording.warning(text, key="integrations"))
    return found
