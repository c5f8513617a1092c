"""A job's Weights & Biases run through the real client: against a server on loopback, and in its offline mode."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from service.installation.context import Context
from service.operations import jobs, keys
from service.operations.keys import Caller
from service.operations.progress import HeldJob
from service.settings.settings import Settings
from tests.given import wandb_server
from tests.given.installation import installed
from tests.given.stored_jobs import a_model, a_result, add_job, expire, messages, move, steps
from tests.given.wandb_server import StoredRun, WandbServer
from tests.given.work import claim_training
from workers.integrations.tracker import Run, Tracker, let_finish

pytestmark = pytest.mark.slow

WANDB = {"type": "wandb", "wandb": {"project": "tunes", "tags": ["mine"]}}
END_SECONDS = 60.0


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with wandb_server.wandb_server() as server:
        yield server


@asynccontextmanager
async def claimed(folder: Path, url: str, key: str = wandb_server.KEY) -> AsyncIterator[tuple[Context, HeldJob]]:
    """An installation with this W&B server, and a running job that reports to it."""
    settings = Settings(data_dir=folder, wandb_api_key=key, wandb_base_url=url)  # type: ignore[arg-type]
    async with installed(settings) as ctx:
        first = await keys.ensure_installation(ctx)
        assert first is not None
        job = await add_job(ctx, await keys.authenticate(ctx, first), "queued")
        await move(ctx, job.id, "queued", integrations=[WANDB])
        yield ctx, await claim(ctx, "one")


async def caller_of(ctx: Context) -> Caller:
    return await keys.authenticate(ctx, await keys.create_key(ctx, "default", "project"))


async def claim(ctx: Context, owner: str) -> HeldJob:
    claim = await claim_training(ctx, owner, ["luthier-tiny"])
    assert claim is not None
    return claim


@asynccontextmanager
async def tracked(ctx: Context, claim: HeldJob) -> AsyncIterator[Tracker]:
    """A started tracker; at the end its runs are told how the job stands, and have time to finish."""
    runs: set[Run] = set()
    tracker = Tracker(claim, runs)
    await tracker.start()
    yield tracker
    await tracker.end()
    await let_finish(runs, END_SECONDS)
    assert runs == set()


async def train(ctx: Context, claim: HeldJob, tracker: Tracker, *numbers: int) -> None:
    """Steps, recorded and tracked as `workers.jobs.train` does it."""
    await claim.record_steps(steps(*numbers), None)
    for step in steps(*numbers):
        tracker.step(dict(step.metrics))


async def standing(server: WandbServer, job_id: str) -> None:
    async with asyncio.timeout(END_SECONDS):
        while server.runs.get(("tunes", job_id), StoredRun()).starts == 0:
            await asyncio.sleep(0.05)


async def test_a_succeeded_job_has_a_run_with_its_metrics_and_its_model(tmp_path: Path, server: WandbServer) -> None:
    async with claimed(tmp_path, server.url) as (ctx, claim):
        model = a_model(claim)
        async with tracked(ctx, claim) as tracker:
            await train(ctx, claim, tracker, 1, 2, 3)
            await claim.finish(model, {}, a_result(claim))
        run = server.runs["tunes", claim.job.id]
        assert (run.name, run.exit_code, run.preempting) == (claim.job.id, 0, False)
        assert run.tags == ["mine", "luthier/finetune", "luthier/luthier-tiny", f"luthier/{claim.job.id}"]
        assert [(row["step"], row["total_steps"], row["train_loss"]) for row in run.history] == [
            (n, 9, 1.0) for n in (1, 2, 3)
        ]
        assert (run.summary["status"], run.summary["fine_tuned_model"]) == ("succeeded", model.name)
        assert (run.config["base"], run.config["method"]) == ("luthier-tiny", "supervised")
        assert run.config["hyperparameters"] == claim.job.hyperparameters


async def test_a_job_that_another_worker_goes_on_with_continues_its_run(tmp_path: Path, server: WandbServer) -> None:
    async with claimed(tmp_path, server.url) as (ctx, first):
        async with tracked(ctx, first) as tracker:
            await train(ctx, first, tracker, 1, 2)
            await standing(server, first.job.id)
            await expire(ctx, first.job.id)
            second = await claim(ctx, "two")
            await second.record_steps(steps(3), None)  # what its own tracker could not send
        assert server.runs["tunes", first.job.id].exit_code is None, "a fenced worker must not end the run"
        async with tracked(ctx, second) as tracker:
            await train(ctx, second, tracker, 2, 3, 4)
            await second.finish(a_model(second), {}, a_result(second))
        run = server.runs["tunes", first.job.id]
        assert [row["step"] for row in run.history] == [1, 2, 3, 4]
        assert (len(server.runs), run.starts, run.exit_code) == (1, 2, 0)


async def test_a_paused_jobs_run_waits_to_be_continued(tmp_path: Path, server: WandbServer) -> None:
    async with claimed(tmp_path, server.url) as (ctx, claim):
        async with tracked(ctx, claim) as tracker:
            await train(ctx, claim, tracker, 1)
            await jobs.pause(ctx, await caller_of(ctx), claim.job.id)
            assert await claim.pause(1)
        run = server.runs["tunes", claim.job.id]
        assert (run.preempting, run.summary["status"]) == (True, "paused")


async def test_a_cancelled_jobs_run_ends_with_it(tmp_path: Path, server: WandbServer) -> None:
    async with claimed(tmp_path, server.url) as (ctx, claim):
        async with tracked(ctx, claim) as tracker:
            await train(ctx, claim, tracker, 1)
            await jobs.cancel(ctx, await caller_of(ctx), claim.job.id)
        run = server.runs["tunes", claim.job.id]
        assert (run.exit_code, run.preempting, run.summary["status"]) == (0, False, "cancelled")


async def test_a_refused_key_is_one_warning_without_the_key(tmp_path: Path, server: WandbServer) -> None:
    wrong = "w" * 40
    async with claimed(tmp_path, server.url, wrong) as (ctx, claim), tracked(ctx, claim) as tracker:
        await train(ctx, claim, tracker, 1)
        async with asyncio.timeout(END_SECONDS):
            while not any("Weights" in said for said in await messages(ctx, claim.job.id)):
                await asyncio.sleep(0.1)
        await tracker.before_the_end()
        warnings = [said for said in await messages(ctx, claim.job.id) if "Weights & Biases" in said]
        assert len(warnings) == 1
        assert wrong not in warnings[0]
        assert "the job continues" in warnings[0]


async def test_an_unavailable_server_costs_a_warning_and_no_time(tmp_path: Path) -> None:
    async with claimed(tmp_path, "http://127.0.0.1:1") as (ctx, claim):
        runs: set[Run] = set()
        tracker, began = Tracker(claim, runs), time.monotonic()
        await tracker.start()
        await train(ctx, claim, tracker, 1, 2, 3)
        await tracker.before_the_end()
        await claim.finish(a_model(claim), {}, a_result(claim))
        await tracker.end()
        assert time.monotonic() - began < 2
        await let_finish(runs, 0.1)
        warnings = [said for said in await messages(ctx, claim.job.id) if "Weights & Biases" in said]
        assert len(warnings) == 1
        assert "had not responded" in warnings[0]


async def test_offline_the_run_lies_in_the_scratch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    async with claimed(tmp_path, "") as (ctx, claim):
        async with tracked(ctx, claim) as tracker:
            await train(ctx, claim, tracker, 1, 2)
            await claim.finish(a_model(claim), {}, a_result(claim))
        (path,) = (ctx.settings.scratch_dir / "wandb").rglob("*.wandb")
        found = list(records(path.read_bytes()))
    (run,) = (record.run for record in found if record.HasField("run"))
    assert (run.run_id, run.project, run.tags[0]) == (claim.job.id, "tunes", "mine")
    logged = [{item.nested_key[0] if item.nested_key else item.key: item.value_json for item in record.history.item}
              for record in found if record.HasField("history")]  # fmt: skip
    assert [row["train_loss"] for row in logged] == ["1", "1"]
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [0]


def records(log: bytes) -> Iterator[Record]:
    """What a .wandb file holds: a log in LevelDB's format, blocks of 32 KiB, its records parsed by wandb's classes."""
    position, whole = 7, b""
    while position < len(log):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", log, position)
        whole += log[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""
