"""Full and partial fine-tuning through the whole service, beside a LoRA: to a served model, which is continued."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file

from service.domain.job import Job
from service.installation.context import Context
from service.installation.storage import open_storage
from service.operations import chores, jobs, models
from service.operations.keys import Caller
from service.recipes.tuning import tuning_of
from tests.given.engines import CPU, listening
from tests.given.running_service import free_ports
from tests.given.worker import artifact, create, ended, installation, reached, upload, weights, worker
from workers.engines.embedded.engine import Engine
from workers.model.load import load_base

pytestmark = pytest.mark.slow
LORA: dict[str, Any] = {"type": "lora", "lora": {"r": 4}}
SPECS: dict[str, dict[str, Any]] = {
    "full": {"type": "full", "full": {}},
    "partial": {"type": "partial", "partial": {"parameters": ["layers.1.mlp", "norm"]}},
}


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
async def ctx(tmp_path: Path, port: int) -> AsyncIterator[Context]:
    tunings = ("lora", "full", "partial")
    async with installation(tmp_path, tunings=tunings, engine_urls=f"http://127.0.0.1:{port}", slots=2) as ctx:
        yield ctx


@pytest.mark.parametrize("kind", SPECS)
async def test_from_a_file_to_a_served_model_and_on_from_there(
    ctx: Context, caller: Caller, port: int, kind: str
) -> None:
    base = ctx.catalogue.bases["tiny"]
    engine = Engine(base, load_base(base, CPU), open_storage(ctx.settings), ctx.settings.data_dir / "cache")
    settings: dict[str, Any] = {"tuning": tuning_of(SPECS[kind]), "training_file": await upload(ctx, caller)}
    settings |= {"validation_file": settings["training_file"], "rate": 10.0}  # the rule's rate is for large bases
    async with listening(engine, port) as url:
        async with worker(ctx):
            calm = await train(ctx, caller, epochs=12, **settings)  # long enough to be paused in time
            beside = await create(ctx, caller, 2, epochs=16, tuning=tuning_of(LORA))
            id = await create(ctx, caller, 1, epochs=12, **settings)
            await reached(ctx, caller, id, lambda job: job.step > 6)
            await jobs.pause(ctx, caller, id)
            assert (await reached(ctx, caller, id, lambda job: job.status == "paused")).step < calm.step
            await jobs.resume(ctx, caller, id)
            parent, lora = await ended(ctx, caller, id, beside)
            assert weights(ctx, parent) == weights(ctx, calm)
            child = await train(ctx, caller, epochs=1, **settings | {"tuning": None}, model=parent.fine_tuned_model)
        assert [job.status for job in (parent, lora, child)] == ["succeeded"] * 3, child.error
        assert child.tuning == parent.tuning == SPECS[kind]
        moved = set(load_file(artifact(ctx, parent.fine_tuned_model) / "adapter_model.safetensors"))
        assert moved == {name for name, _ in load_base(base, CPU).model.named_parameters() if belongs(kind, name)}

        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            names = ["tiny", *(job.fine_tuned_model for job in (parent, lora, child))]
            first = await asyncio.gather(*(logprobs(client, name) for name in names))
            assert len(set(map(tuple, first))) == 4
            for name, seen in zip(names, first, strict=True):
                assert await logprobs(client, name) == pytest.approx(seen, abs=1e-4)

        assert parent.fine_tuned_model is not None
        await models.delete(ctx, caller, parent.fine_tuned_model)
        await chores.sweep(ctx)
        assert not list(artifact(ctx, parent.fine_tuned_model).glob("*"))


def belongs(kind: str, name: str) -> bool:
    return kind == "full" or ".layers.1.mlp." in name or name == "model.norm.weight"


async def train(ctx: Context, caller: Caller, **fields: Any) -> Job:
    (job,) = await ended(ctx, caller, await create(ctx, caller, 1, **fields))
    assert job.status == "succeeded", job.error
    return job


async def logprobs(client: httpx.AsyncClient, model: str | None) -> list[float]:
    """Of the tokens of one fixed prompt."""
    asked = {"model": model, "prompt": "3 green? GREEN", "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0}
    answer = await client.post("/v1/completions", json=asked)
    assert answer.status_code == 200, answer.text
    values: list[float] = answer.json()["choices"][0]["logprobs"]["token_logprobs"][1:-1]
    return values
