"""No operation reads a table that grows from its beginning to its end, on either database.

SQLite says SCAN for that and SEARCH for the use of an index; PostgreSQL, which is told to avoid it, says Seq Scan.
Scans of partial indexes are fine: they hold what is still to be done, as `upload_parts` does.
"""

import re

import httpx
from sqlalchemy import update

from service.db.tables import jobs
from service.installation.context import Context
from service.operations import counts, sweeps
from service.operations import jobs as job_operations
from service.operations.keys import Caller
from tests.given.jobs_by_http import JOBS, create
from tests.given.many_jobs import add_many
from tests.given.statements import plan, queries
from tests.given.stored_jobs import claimed, tell
from tests.given.stored_models import add_model, list_as_checkpoint
from tests.given.work import claim_training, renew

GROWING = (
    "jobs|job_metadata|job_events|files|file_segments|models|checkpoints|work|uploads|checks|snapshots|removed_rows"
)
WHOLE = re.compile(rf"\bSCAN ({GROWING})\b(?! USING (COVERING )?INDEX ix_\w+_(unswept|held|waiting|expiring))")
WHOLE_POSTGRES = re.compile(rf"Seq Scan on ({GROWING})\b")


async def test_no_operation_reads_a_whole_table(ctx: Context, caller: Caller, client: httpx.AsyncClient) -> None:
    with queries(ctx) as sent:
        await _as_users(ctx, caller, client)
        await _as_workers_and_chores(ctx, caller)
    assert len(sent) >= 50
    whole = [
        (statement, line)
        for statement, parameters in sent.items()
        for line in await plan(ctx, statement, parameters)
        if WHOLE.search(line) or WHOLE_POSTGRES.search(line)
    ]
    assert whole == []


async def test_jobs_without_metadata_are_found_by_their_own_index(
    ctx: Context, caller: Caller, client: httpx.AsyncClient
) -> None:
    """An index of all jobs would be read through as many as have some: which PostgreSQL chooses, it decides by counts
    that it takes now and then, so they are taken here.
    """
    await add_many(ctx, caller, 1000, num_steps=1)
    async with ctx.database.transaction() as tx:
        await tx.connection.execute(update(jobs).values(metadata={"team": "a"}))
    await create(client, metadata={})
    async with ctx.database.transaction() as tx:
        await tx.connection.exec_driver_sql("ANALYZE")
    with queries(ctx) as sent:
        (job,) = (await client.get(f"{JOBS}?metadata=null")).json()["data"]
    assert job["metadata"] is None
    ((statement, parameters),) = ((one, values) for one, values in sent.items() if "metadata IS NULL" in one)
    assert any("ix_jobs_without_metadata" in line for line in await plan(ctx, statement, parameters))


async def _as_users(ctx: Context, caller: Caller, client: httpx.AsyncClient) -> None:
    job = await create(client, metadata={"team": "a", "run": "1"})
    await tell(ctx, job["id"], 1, 2)
    name = await add_model(ctx, caller, job["id"], "ft:luthier-tiny:o::plan0001")
    await list_as_checkpoint(ctx, job["id"], name, 1)
    upload = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 3, "mime_type": "application/jsonl"}
    upload_id = (await client.post("/uploads", json=upload)).json()["id"]
    await client.post(f"/uploads/{upload_id}/parts", files={"data": b"{}\n"})
    one = f"{JOBS}/{job['id']}"
    for path in (
        "/files", f"/files?purpose=fine-tune&after={job['training_file']}", f"/files/{job['training_file']}",
        JOBS, f"{JOBS}?after={job['id']}", f"{JOBS}?metadata[team]=a&metadata[run]=1", f"{JOBS}?metadata=null",
        one, f"{one}/events", f"{one}/checkpoints", f"{one}/events?stream=true",
        "/models", f"/models/{name}", "/model_aliases", "/fine_tuning/checks", "/fine_tuning/checks?after=a",
    ):  # fmt: skip
        if "stream" not in path:
            response = await client.get(path)
            assert response.status_code == 200, (path, response.text)
    await job_operations.messages(ctx, caller, job["id"], 20)
    await client.post("/chat/completions", json={"model": name, "messages": [{"role": "user", "content": "a"}]})
    await client.post(f"/uploads/{upload_id}/cancel")
    await client.delete(f"/models/{name}")
    await client.delete(f"/files/{job['training_file']}")
    other = (await create(client))["id"]
    await client.post(f"{JOBS}/{other}/cancel")


async def _as_workers_and_chores(ctx: Context, caller: Caller) -> None:
    held = await claimed(ctx, caller)
    await renew(ctx, "one", [held])
    await claim_training(ctx, "two")
    for due in (
        sweeps.unneeded_files, sweeps.unneeded_parts, sweeps.ended_uploads, sweeps.dead_models, sweeps.ended_jobs,
        sweeps.remove_unused_datasets,
    ):  # fmt: skip
        await due(ctx, 10)
    await sweeps.expire_uploads(ctx)
    await sweeps.any_due(ctx)
    await counts.count_jobs(ctx)
