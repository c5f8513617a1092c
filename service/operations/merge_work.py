"""The kind of work that a merge is, and a worker's writes about the merge that it holds. Each is one transaction.

A write whose claim is no longer valid raises LeaseLost and changes nothing. How it is done is in `workers.jobs.merge`.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, replace

from service.db import model_merges, models, work
from service.db.connection import Transaction
from service.domain.check import Failure
from service.domain.errors import JobError, TooLarge
from service.domain.model_merge import FINAL, ModelMerge
from service.domain.work import Work
from service.operations import quotas
from service.operations.job_work import SERVICE_ERROR
from service.work.held import HeldWork
from service.work.kinds import Kind, register


async def _begin(tx: Transaction, work: Work) -> ModelMerge | None:
    merge = await model_merges.find(tx, work.subject_id, lock=True)
    if merge is None or merge.status in FINAL:
        return None
    model = await models.find(tx, merge.project_id, merge.model)
    if model is None or model.deleted_at is not None:
        await _fail(tx, merge, JobError("model_deleted", f"The model '{merge.model}' was deleted.", "model"))
        return None
    await model_merges.change(tx, merge.id, merge.status, {"status": "running"})
    return replace(merge, status="running")


async def _abandon(tx: Transaction, work: Work, crashes: int) -> None:
    merge = await model_merges.find(tx, work.subject_id, lock=True)
    if merge is not None and merge.status not in FINAL:
        await _fail(tx, merge, _crashed(crashes) if crashes else JobError("server_error", SERVICE_ERROR))


def _crashed(crashes: int) -> JobError:
    """The error of a merge that ended the process which made it so many times."""
    return JobError(
        "worker_crashed",
        f"The merge was stopped because its worker ended {crashes} times while it made it: it needs memory for the "
        "whole base. The worker's log says more.",
        "format",
    )


async def _fail(tx: Transaction, merge: ModelMerge, error: JobError) -> None:
    failure = asdict(Failure(error.code, error.message, error.param))
    await _end(tx, merge, {"status": "failed", "error": failure})


async def _end(tx: Transaction, merge: ModelMerge, values: Mapping[str, object]) -> None:
    changed = await model_merges.change(tx, merge.id, merge.status, {**values, "finished_at": int(time.time())})
    assert changed, "whoever ends a merge takes its work first"


MERGE = register(Kind("merge", _begin, _abandon))


class HeldMerge(HeldWork[ModelMerge]):
    """A claim of a merge, and what may be written with it."""

    @property
    def merge(self) -> ModelMerge:
        """The merge as the claim found it."""
        return self.subject

    async def finish(self, num_bytes: int, sha256: str) -> bool:
        """The archive is stored. False where the project has no room for it: then the merge has failed."""
        async with self.transaction() as tx:
            await work.remove(tx, [self.id])
            try:
                await quotas.check_merged(self.ctx, tx, self.merge.project_id, num_bytes)
            except TooLarge as error:
                await _fail(tx, self.merge, JobError("project_bytes_exceeded", error.message, "format"))
                return False
            await _end(tx, self.merge, {"status": "succeeded", "bytes": num_bytes, "sha256": sha256})
            return True

    async def fail(self, error: JobError) -> None:
        """The model cannot be merged."""
        async with self.transaction() as tx:
            await _fail(tx, self.merge, error)
            await work.remove(tx, [self.id])
