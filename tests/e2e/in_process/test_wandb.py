"""Jobs that report to Weights & Biases: trained by a real worker, kept by the real client on a server on loopback."""

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.installation.context import Context
from service.installation.create import create_context
from service.operations import jobs
from service.operations.keys import Caller
from tests.given.wandb_server import KEY, WandbServer, wandb_server
from tests.given.worker import create, ended, first_caller, installation, weights, worker

pytestmark = pytest.mark.slow
WANDB = {"type": "wandb", "wandb": {"project": "tunes", "name": "mine"}}


async def trained(folder: Path, url: str, server: WandbServer | None = None) -> tuple[Context, Caller, str]:
    """A succeeded job that reports to `url`, and one of the same bits that reports nowhere.

    Its worker lives until `server` knows that the job succeeded: one that stops leaves the client 10 seconds.
    """
    async with installation(folder) as ctx:
        caller = await first_caller(ctx)
        settings = ctx.settings.model_copy(update={"wandb_api_key": SecretStr(KEY), "wandb_base_url": url})
    ctx = create_context(settings)
    async with worker(ctx):
        alone, reporting = await create(ctx, caller, 1), await create(ctx, caller, 1, integrations=[WANDB])
        first, second = await ended(ctx, caller, alone, reporting)
        async with asyncio.timeout(60):
            while server is not None and not succeeded(server, reporting):
                await asyncio.sleep(0.05)
    assert (first.status, second.status) == ("succeeded", "succeeded")
    assert weights(ctx, first) == weights(ctx, second)
    return ctx, caller, reporting


def succeeded(server: WandbServer, job_id: str) -> bool:
    run = server.runs.get(("tunes", job_id))
    return run is not None and run.exit_code == 0


async def said(ctx: Context, caller: Caller, job_id: str) -> list[str]:
    page = await jobs.event_page(ctx, caller, job_id, after=None, limit=100)
    return [event.message for event in page.items if event.level == "warn"]


async def test_a_jobs_run_has_every_step_and_nothing_of_its_file(tmp_path: Path) -> None:
    with wandb_server() as server:
        ctx, caller, job_id = await trained(tmp_path, server.url, server)
        job = (await jobs.retrieve(ctx, caller, job_id)).job
        run = server.runs["tunes", job_id]
    await ctx.close()
    assert (run.name, run.exit_code, run.summary["fine_tuned_model"]) == ("mine", 0, job.fine_tuned_model)
    assert [row["step"] for row in run.history] == list(range(1, 19))
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]
    everything = "".join(server.received).lower()
    assert "train_mean_token_accuracy" in everything
    assert not any(word in everything for word in ("red?", "blue?", "green?"))


async def test_a_job_succeeds_though_weights_and_biases_is_away(tmp_path: Path) -> None:
    ctx, caller, job_id = await trained(tmp_path, "http://127.0.0.1:1")
    warning = next(message for message in await said(ctx, caller, job_id) if "Weights" in message)
    await ctx.close()
    assert "Weights & Biases" in warning
