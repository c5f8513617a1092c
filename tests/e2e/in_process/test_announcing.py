"""A trained model becomes public only when an engine computes what was trained; until then the job holds no slot."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from service.domain.event import Event
from service.domain.job import Job
from service.domain.model import MANIFEST, SERVED, Manifest
from service.installation.context import Context
from service.installation.storage import open_storage
from service.operations import chores, jobs
from service.operations.keys import Caller
from service.recipes.catalogue import Catalogue
from service.recipes.served_form import AskedForm
from service.recipes.tunings.full import FullSettings
from service.recipes.tunings.miss import MissSettings
from tests.given.engines import CPU, listening, logits_of
from tests.given.running_service import free_ports
from tests.given.scripted_engine import Script, answers, scripted_engine
from tests.given.stored_jobs import end_long_ago
from tests.given.stored_models import checkpoint_names, find_model
from tests.given.tiny_models import make_tiny_base
from tests.given.worker import (
    END_SECONDS,
    artifact,
    create,
    ended,
    first_caller,
    installation,
    reached,
    weights,
    worker,
)
from tests.given.worker_process import worker_process
from workers.engines.embedded.engine import Engine
from workers.engines.vllm.fit import check_folder, check_manifest
from workers.files.artifacts import fetch_artifact
from workers.model.load import load_base

pytestmark = pytest.mark.slow
WAITING = "it waits for an engine"


@pytest.fixture
async def ctx(tmp_path: Path, port: int) -> AsyncIterator[Context]:
    async with installation(tmp_path, engine_urls=f"http://127.0.0.1:{port}", slots=1, lease_seconds=6) as ctx:
        yield ctx


@asynccontextmanager
async def engine(ctx: Context, port: int, base_seed: int | None = None) -> AsyncIterator[Engine]:
    """The installation's engine; with `base_seed` one with other weights of the same shape, which does not say so."""
    base = ctx.catalogue.bases["tiny"]
    loaded = load_base(base, CPU)
    if base_seed is not None:
        other = load_base(make_tiny_base(ctx.settings.data_dir / "other", seed=base_seed), CPU)
        loaded = replace(other, hashes=loaded.hashes)
    made = Engine(base, loaded, open_storage(ctx.settings), ctx.settings.data_dir / f"cache-{base_seed}")
    async with listening(made, port):
        yield made


def trained(job: Job) -> bool:
    return job.publication is not None


async def events(ctx: Context, caller: Caller, id: str) -> list[Event]:
    """All that is no metrics, oldest first."""
    page = await jobs.event_page(ctx, caller, id, after=None, limit=100)
    return [event for event in reversed(page.items) if event.type == "message"]


async def waits(ctx: Context, caller: Caller, id: str) -> None:
    """Returns once the job has said that it waits for an engine."""
    async with asyncio.timeout(END_SECONDS):
        while not any(WAITING in event.message for event in await events(ctx, caller, id)):
            await asyncio.sleep(0.05)


def final_artifacts(ctx: Context, job: Job) -> list[str]:
    """Folders in storage of last checkpoints, public or not."""
    folders = (ctx.settings.data_dir / "objects" / "adapters").iterdir()
    return [folder.name for folder in folders if "ckpt-step" not in folder.name]


async def test_an_agreement_is_an_event_before_the_model_is_public(ctx: Context, caller: Caller, port: int) -> None:
    async with engine(ctx, port), worker(ctx):
        (job,) = await ended(ctx, caller, await create(ctx, caller, 1))
    assert job.status == "succeeded", job.error
    said = await events(ctx, caller, job.id)
    assert [event.message.partition(" (")[0] for event in said[-3:]] == [
        "New fine-tuned model's log-probabilities agree with its training",
        f"New fine-tuned model created: {job.fine_tuned_model}",
        "The job has successfully completed",
    ]
    figure = said[-3].data
    assert figure["tokens"] > 20
    assert figure["trained_effect"] > 0.01
    assert figure["served_effect"] == pytest.approx(figure["trained_effect"], rel=1e-3)
    assert figure["slope"] == pytest.approx(1, abs=1e-3)
    assert figure["base_difference"] < 1e-4
    assert not any(WAITING in event.message for event in said)


async def test_an_engine_that_is_away_delays_the_announcement_and_holds_no_slot(
    ctx: Context, caller: Caller, port: int
) -> None:
    first, second = await create(ctx, caller, 1), await create(ctx, caller, 2)
    async with worker(ctx):
        for id in (first, second):  # one slot: the second trains while the first waits
            job = await reached(ctx, caller, id, trained)
            assert job.status == "running"
            assert job.fine_tuned_model is None
        for id in (first, second):
            await waits(ctx, caller, id)
        async with engine(ctx, port):
            both = await ended(ctx, caller, first, second)
    assert [job.status for job in both] == ["succeeded", "succeeded"]
    for job in both:
        said = [event.message for event in await events(ctx, caller, job.id)]
        assert sum(WAITING in message for message in said) == 1
        assert len(said) == len(set(said))


async def test_an_engine_that_serves_loras_alone_gets_one_of_another_tuning(
    ctx: Context, caller: Caller, port: int
) -> None:
    """It checks artifacts by vLLM's rules; beside it, one whose LoRA keeps too little is refused with the figure."""
    base = ctx.catalogue.bases["tiny"]
    asked = {"tuning": MissSettings(r=8), "served_form": AskedForm("lora"), "rate": 10.0}
    lossy = {"tuning": FullSettings(), "served_form": AskedForm("lora", 1, 0.99), "rate": 10.0}
    async with scripted_engine(port) as engine, worker(ctx):
        engine.script = serving_loras_alone(ctx)
        ids = [await create(ctx, caller, 1, **asked), await create(ctx, caller, 2, **lossy)]
        job, refused = await ended(ctx, caller, *ids)
    assert job.status == "succeeded", job.error
    assert job.tuning == {
        "type": "miss", "miss": MissSettings(r=8).model_dump(), "serve_as": "lora", "serve_rank": 8,
        "serve_min_share": 0.9,
    }  # fmt: skip
    said = {event.message: event.data for event in await events(ctx, caller, job.id)}
    [(message, figures)] = [(text, data) for text, data in said.items() if "served as a LoRA" in text]
    assert "rank 8, which computes what was trained" in message
    assert figures["share"] == 1 and figures["effect"] > 0.01 and figures["difference"] < 1e-5
    [newest, *_] = (await jobs.checkpoint_page(ctx, caller, job.id, after=None, limit=10)).items
    assert newest.checkpoint.metrics["served_share"] == 1
    folder = artifact(ctx, job.fine_tuned_model)
    configurations = [json.loads((where / "adapter_config.json").read_bytes()) for where in (folder, folder / SERVED)]
    assert [configuration["peft_type"] for configuration in configurations] == ["MISS", "LORA"]
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    assert manifest.tuning == "miss" and manifest.served is not None and manifest.served.rank == 8
    assert manifest.served.files == {name: sha256(folder / SERVED / name) for name in manifest.served.files}
    assert refused.error is not None and refused.error["code"] == "conversion_too_lossy"
    assert "less than the job's serve_min_share of 99.00%" in refused.error["message"]
    left_out = [event for event in await events(ctx, caller, refused.id) if "is not published" in event.message]
    assert [event.data["rank"] for event in left_out] == [1, 1]  # of the first two epochs
    assert base.serving.tunings == {"lora", "prompt"}


def serving_loras_alone(ctx: Context) -> Script:
    """Scores prompts, as the announcement asks, with what vLLM would take; refuses everything else."""
    base, cache = ctx.catalogue.bases["tiny"], ctx.settings.data_dir / "cache-of-loras"
    loaded, store = load_base(base, CPU), open_storage(ctx.settings)

    async def script(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        folder = None
        if body["model"] != base.id:
            folder = await fetch_artifact(store, body["model"], cache)
            check_manifest(base, Manifest.model_validate_json((folder / MANIFEST).read_bytes()))
            check_folder(base, folder)
        ids = body["prompt"]
        logprobs_TV = logits_of(loaded, folder, ids).log_softmax(-1)
        scores = [None, *(float(logprobs_TV[place, id]) for place, id in enumerate(ids[1:]))]
        return web.json_response({"choices": [{"logprobs": {"token_logprobs": scores}}]})

    return script


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_an_engine_that_refuses_while_it_dies_only_delays(ctx: Context, caller: Caller, port: int) -> None:
    """As vLLM does, whose engine is gone before its API server is."""
    id = await create(ctx, caller, 1)
    async with worker(ctx):
        async with scripted_engine(port) as dying:
            dying.script = answers(b'{"error": {"message": "It was found but could not be loaded."}}', 400)
            async with asyncio.timeout(END_SECONDS):
                while not dying.seen:
                    await asyncio.sleep(0.05)
        async with engine(ctx, port):
            (job,) = await ended(ctx, caller, id)
    assert job.status == "succeeded", job.error


async def test_a_worker_killed_while_it_waits_costs_no_training(ctx: Context, caller: Caller, port: int) -> None:
    id = await create(ctx, caller, 1)
    async with worker_process(ctx):
        before = await reached(ctx, caller, id, trained)
        await waits(ctx, caller, id)
    stored = final_artifacts(ctx, before)
    async with engine(ctx, port), worker(ctx, "tests.faults.no_such_trainer"):  # it could not train
        (job,) = await ended(ctx, caller, id)
    assert job.status == "succeeded", job.error
    assert before.publication is not None
    assert job.fine_tuned_model == before.publication["name"]
    assert final_artifacts(ctx, job) == stored
    assert len(stored) == 1


async def test_a_job_cancelled_while_it_waits_leaves_nothing_behind(ctx: Context, caller: Caller, port: int) -> None:
    id = await create(ctx, caller, 1)
    async with worker(ctx):
        job = await reached(ctx, caller, id, trained)
        await waits(ctx, caller, id)
        assert (await jobs.cancel(ctx, caller, id)).job.status == "cancelled"
        async with engine(ctx, port):
            await asyncio.sleep(1)
    assert job.publication is not None
    assert (await reached(ctx, caller, id, lambda job: True)).status == "cancelled"
    assert artifact(ctx, job.publication["name"]).exists()
    await end_long_ago(ctx, id)
    await chores.sweep(ctx)
    assert not list(artifact(ctx, job.publication["name"]).rglob("*.*"))


async def test_an_engine_that_computes_something_else_fails_the_job(ctx: Context, caller: Caller, port: int) -> None:
    async with engine(ctx, port, base_seed=1), worker(ctx):
        (job,) = await ended(ctx, caller, await create(ctx, caller, 1))
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "engine_disagrees"
    assert "tolerated" in job.error["message"]
    assert job.publication is not None
    assert job.publication["name"] not in await checkpoint_names(ctx, job.id)
    assert await find_model(ctx, job.publication["name"]) is None


@pytest.mark.parametrize("trained_in", ["bfloat16", "float32"])
async def test_a_job_on_bfloat16_is_announced_by_an_engine_that_rounds_of_its_own_accord(
    tmp_path: Path, trained_in: str
) -> None:
    """A GPU's default. The engine computes in the other format: more noise than any kernel's lies between them."""
    base = make_tiny_base(tmp_path / "base", dtype=trained_in)
    other = base.model_copy(update={"dtype": {"bfloat16": "float32", "float32": "bfloat16"}[trained_in]})
    (port,) = free_ports(1)
    async with installation(tmp_path, engine_urls=f"http://127.0.0.1:{port}") as made:
        ctx = replace(made, catalogue=Catalogue([base]))
        caller = await first_caller(ctx)
        loaded = replace(load_base(other, CPU), hashes=load_base(base, CPU).hashes)
        served = Engine(base, loaded, open_storage(ctx.settings), tmp_path / "cache")
        async with listening(served, port), worker(ctx):
            (job,) = await ended(ctx, caller, await create(ctx, caller, 1))
        assert job.status == "succeeded", job.error
        (figure,) = [dict(event.data) for event in await events(ctx, caller, job.id) if "slope" in event.data]
    assert figure["base_difference"] > 1e-4
    assert figure["slope"] == pytest.approx(1, abs=0.1)
    assert figure["residual"] < figure["residual_allowed"]


async def test_an_adapter_that_the_catalogue_no_longer_serves_is_not_stored(
    ctx: Context, caller: Caller, port: int
) -> None:
    id = await create(ctx, caller, 1)
    base = ctx.catalogue.bases["tiny"]
    stricter = base.model_copy(update={"serving": base.serving.model_copy(update={"max_rank": 8})})
    async with worker(replace(ctx, catalogue=Catalogue([stricter]))):
        (job,) = await ended(ctx, caller, id)
    assert job.error is not None
    assert job.error["code"] == "not_servable"
    assert "up to rank 8" in job.error["message"]
    assert not (ctx.settings.data_dir / "objects" / "adapters").exists()


async def test_a_damaged_artifact_is_the_jobs_error_and_no_endless_wait(
    ctx: Context, caller: Caller, port: int
) -> None:
    id = await create(ctx, caller, 1)
    async with worker(ctx):
        job = await reached(ctx, caller, id, trained)
        await waits(ctx, caller, id)
    assert job.publication is not None
    (artifact(ctx, job.publication["name"]) / "adapter_model.safetensors").write_bytes(b"damaged")
    async with worker(ctx):
        (job,) = await ended(ctx, caller, id)
    assert job.error is not None
    assert job.error["code"] == "artifact_unusable"


async def test_the_comparison_changes_no_bit_and_without_engines_it_is_left_out_aloud(
    ctx: Context, caller: Caller, port: int, tmp_path: Path
) -> None:
    async with engine(ctx, port), worker(ctx):
        (compared,) = await ended(ctx, caller, await create(ctx, caller, 1))
    async with installation(tmp_path / "other") as alone:
        other = await first_caller(alone)
        async with worker(alone):
            (job,) = await ended(alone, other, await create(alone, other, 1))
        assert job.status == "succeeded"
        warnings = [event.message for event in await events(alone, other, job.id) if event.level == "warn"]
        assert len(warnings) == 1
        assert "none is configured" in warnings[0]
        assert weights(alone, job) == weights(ctx, compared)
