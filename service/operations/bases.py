"""The weights of a public base id, recorded at its first use: other weights under the same id are rejected."""

from service.db import bases, jobs, models
from service.db.bases import BaseRecord
from service.domain.errors import InvalidRequest, JobError
from service.installation.context import Context

__all__ = ["BaseRecord", "check_unused", "register"]


async def register(ctx: Context, record: BaseRecord) -> None:
    """Records the base, or compares it with what is recorded. Raises JobError `base_changed`."""
    async with ctx.database.transaction() as tx:
        if await bases.add(tx, record):
            return
        known = await bases.find(tx, record.id)
    assert known is not None, "bases are never deleted"
    names = known.hashes.keys() | record.hashes.keys()
    changed = sorted(name for name in names if known.hashes.get(name) != record.hashes.get(name))
    if changed:
        raise JobError(
            "base_changed",
            f"The base '{record.id}' is not what it was when it was first used ({', '.join(changed)} differ). "
            "Give the new weights an id of their own in the catalogue: another dtype makes other weights, too.",
            "model",
        )


async def check_unused(ctx: Context, id: str) -> None:
    """Raises InvalidRequest where a job that has not ended, or a model, needs the base."""
    async with ctx.database.reading() as tx:
        job, model = await jobs.active_of(tx, id), await models.living_of(tx, id)
    if job is not None:
        raise InvalidRequest(f"The base '{id}' is needed by {job}, which has not ended: cancel it or wait for it.")
    if model is not None:
        raise InvalidRequest(f"The base '{id}' is needed by the model {model}: delete its models first.")
