"""The kind of work that a check is, and a worker's writes about the check that it holds. Each is one transaction.

A write whose claim is no longer valid raises LeaseLost and changes nothing: the check was deleted, or another worker
has it. How it is done is in `workers.jobs.check`.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, replace

from service.db import checks, datasets, webhooks, work
from service.db.connection import Transaction
from service.domain.check import FINAL, RESULT, Check, CheckResult, Failure
from service.domain.dataset import StoredDataset
from service.domain.errors import JobError
from service.domain.webhook import CHECK_COMPLETED
from service.domain.work import Work
from service.operations.job_work import SERVICE_ERROR
from service.operations.progress import DataColumn
from service.work.held import HeldWork
from service.work.kinds import Kind, register


async def _begin(tx: Transaction, work: Work) -> Check | None:
    check = await checks.find(tx, None, work.subject_id, lock=True)
    if check is None or check.status in FINAL:
        return None
    await checks.change(tx, check.id, check.status, {"status": "running"})
    return replace(check, status="running")


async def _abandon(tx: Transaction, work: Work, crashes: int) -> None:
    check = await checks.find(tx, None, work.subject_id, lock=True)
    if check is not None and check.status not in FINAL:
        await _fail(tx, check, _crashed(check, crashes) if crashes else JobError("server_error", SERVICE_ERROR))


def _crashed(check: Check, crashes: int) -> JobError:
    files = f"the training file {check.training_file}"
    if check.validation_file is not None:
        files += f" and the validation file {check.validation_file}"
    return JobError(
        "worker_crashed",
        f"The check was stopped because its worker ended {crashes} times while it read {files}. Look for unusually "
        "long or damaged lines, remove those or split the file, and check it again.",
        "training_file",
    )


async def _fail(tx: Transaction, check: Check, error: JobError) -> None:
    failure = asdict(Failure(error.code, error.message, error.param))
    values = {"status": "failed", "finished_at": int(time.time()), "error": failure}
    if await checks.change(tx, check.id, check.status, values):
        await webhooks.add_deliveries(tx, check.project_id, check.id, CHECK_COMPLETED)


CHECK = register(Kind("check", _begin, _abandon))


class HeldCheck(HeldWork[Check]):
    """A claim of a check, and what may be written with it."""

    @property
    def check(self) -> Check:
        """The check as the claim found it."""
        return self.subject

    async def use_dataset(self, column: DataColumn, key: str) -> StoredDataset | None:
        """The tokenised rows of that content, if there are any. The check names them at once: no sweep removes them."""
        async with self.transaction() as tx:
            found = await datasets.use(tx, key)
            if found is not None:
                await self._change(tx, {column: found.object_key})
            return found

    async def add_dataset(self, column: DataColumn, stored: StoredDataset, missing: str | None = None) -> StoredDataset:
        """Shares rows that were stored just now; returns those that the check uses, as for jobs."""
        async with self.transaction() as tx:
            if missing is not None:
                await datasets.remove(tx, missing)
            used = await datasets.add_or_use(tx, stored)
            await self._change(tx, {column: used.object_key})
            return used

    async def described(self, object_key: str, version: int) -> None:
        """What this version finds out about the rows is stored beside them."""
        async with self.transaction() as tx:
            await datasets.describe(tx, object_key, version)

    async def finish(self, result: CheckResult) -> None:
        """The check is done."""
        values = {
            "status": "succeeded",
            "finished_at": int(time.time()),
            "result": RESULT.dump_python(result, mode="json"),
        }
        async with self.transaction() as tx:
            await self._change(tx, values)
            await webhooks.add_deliveries(tx, self.check.project_id, self.check.id, CHECK_COMPLETED)
            await work.remove(tx, [self.id])

    async def fail(self, error: JobError) -> None:
        """The check could not be done."""
        async with self.transaction() as tx:
            await _fail(tx, self.check, error)
            await work.remove(tx, [self.id])

    async def _change(self, tx: Transaction, values: Mapping[str, object]) -> None:
        changed = await checks.change(tx, self.check.id, self.check.status, values)
        assert changed, "whoever ends a check takes its work first"
