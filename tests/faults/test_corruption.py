"""Bytes in storage that are not what was stored: an older snapshot is taken, a damaged model never answers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import quote

import pytest
from openai import InternalServerError

from service.installation.context import Context
from service.operations import lookups
from service.storage.base import one_chunk, read
from tests.faults.invariants import check_callable, check_succeeded, wait_until_final
from tests.faults.processes import Process
from tests.faults.rounds import KINDS, ROUNDS
from tests.faults.twins import Twins
from tests.given.running_service import wait_for
from tests.production import Production

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("round_number", range(ROUNDS))]
KIND = KINDS[0]
T = TypeVar("T")


def behind_the_api(production: Production, work: Callable[[Context], Awaitable[T]]) -> T:
    """Runs `work` on the set's own database and storage."""

    async def run() -> T:
        ctx = production.context()
        try:
            return await work(ctx)
        finally:
            await ctx.close()

    return asyncio.run(run())


async def flip_a_byte(ctx: Context, key: str) -> None:
    content = bytearray(await read(ctx.storage, key))
    content[len(content) // 2] ^= 1
    await ctx.storage.put(key, one_chunk(bytes(content)))


def test_a_damaged_snapshot_is_passed_over(production_set: Production, twins: Twins, round_number: int) -> None:
    """The newest one is damaged while nobody trains; the job resumes from the one before and ends in the same bits."""
    twins.undisturbed(KIND)
    job_id = twins.create(KIND)

    async def newest(ctx: Context) -> list[str]:
        return [snapshot.prefix for snapshot in await lookups.find_snapshots(ctx, job_id)]

    wait_for(lambda: bool(behind_the_api(production_set, newest)), 60, "a snapshot")
    for worker in production_set.workers:
        worker.freeze()  # nobody may take the job over before the damage is done
    (holder,) = (worker for worker in production_set.workers if said_of(worker, job_id, "job.claimed"))
    (other,) = (worker for worker in production_set.workers if worker is not holder)
    try:
        prefixes = behind_the_api(production_set, newest)

        async def damage(ctx: Context) -> None:
            await flip_a_byte(ctx, f"{prefixes[0]}state.safetensors")

        behind_the_api(production_set, damage)
        other.thaw()  # and takes it over when the holder's lease has expired
        check_succeeded(production_set, twins, job_id, KIND)
    finally:
        for worker in production_set.workers:
            worker.thaw()
    assert said_of(other, job_id, "snapshot.unusable")


def said_of(worker: Process, job_id: str, event: str) -> bool:
    """Whether the worker has logged this of the job."""
    return any(event in line and job_id in line for line in worker.log.read_text(errors="replace").splitlines())


def test_a_damaged_artifact_never_answers(production_set: Production, twins: Twins, round_number: int) -> None:
    client = production_set.client()
    model = wait_until_final(client, twins.create(KIND)).fine_tuned_model
    assert model is not None
    key = f"adapters/{quote(model, safe='')}/adapter_model.safetensors"

    async def damage(ctx: Context) -> None:
        await flip_a_byte(ctx, key)

    production_set.engine.kill_all()  # whatever it holds of the model is lost with its machine
    production_set.forget_engine_cache()
    behind_the_api(production_set, damage)
    production_set.engine.start()
    production_set.wait_ready()
    with pytest.raises(InternalServerError) as refused:
        client.with_options(max_retries=0).completions.create(model=model, prompt="0 red?", max_tokens=4)
    assert refused.value.status_code == 503
    behind_the_api(production_set, damage)  # the same bit again: repaired
    check_callable(client, model)
