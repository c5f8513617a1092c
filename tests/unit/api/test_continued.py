"""Continued tuning through HTTP: which models a job may start from, and with which tuning."""

from typing import Any

import httpx
import pytest

from service.installation.context import Context
from service.operations.keys import Caller
from service.recipes.tunings.lora import LoraSettings
from tests.given.files_by_http import upload
from tests.given.jobs_by_http import JOBS, create
from tests.given.stored_models import add_model, unswept_models

PARENT = "ft:luthier-tiny:luthier:x:AAAAAAAA:ckpt-step-10"
LORA = LoraSettings(r=8, alpha=16, dropout=0.1, target_modules=["q_proj", "v_proj"]).model_dump()


@pytest.fixture
async def parent(ctx: Context, client: httpx.AsyncClient, caller: Caller) -> str:
    """A checkpoint of a LoRA job."""
    job = await create(client, tuning={"type": "lora", "lora": LORA})
    return await add_model(ctx, caller, job["id"], PARENT)


async def refused(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await client.post(JOBS, json={"training_file": (await upload(client))["id"], **fields})
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    return error


async def test_the_job_names_its_parent_and_takes_its_tuning(client: httpx.AsyncClient, parent: str) -> None:
    job = await create(client, model=parent)
    assert job["model"] == parent
    assert job["tuning"] == {"type": "lora", "lora": LORA}


@pytest.mark.parametrize(
    "asked", [{}, {"dropout": 0.3}, {"r": 8, "alpha": 16}, {"target_modules": ["v_proj", "q_proj"]}]
)
async def test_a_fitting_tuning_is_accepted(client: httpx.AsyncClient, parent: str, asked: dict[str, Any]) -> None:
    job = await create(client, model=parent, tuning={"type": "lora", "lora": asked})
    assert job["tuning"]["lora"] == {**LORA, **asked}


@pytest.mark.parametrize(
    ("tuning", "param"),
    [
        ({"type": "lora", "lora": {"r": 4}}, "tuning.lora.r"),
        ({"type": "lora", "lora": {"alpha": 32}}, "tuning.lora.alpha"),
        ({"type": "lora", "lora": {"use_dora": True}}, "tuning.lora.use_dora"),
        ({"type": "lora", "lora": {"target_modules": "all-linear"}}, "tuning.lora.target_modules"),
        ({"type": "ia3"}, "tuning.type"),
        ({"type": "lora", "prompt": {"num_virtual_tokens": 4}}, "tuning.prompt"),
    ],
)
async def test_another_shape_is_refused_by_name(
    client: httpx.AsyncClient, parent: str, tuning: dict[str, Any], param: str
) -> None:
    error = await refused(client, model=parent, tuning=tuning)
    assert error["param"] == param
    assert param in error["message"]


async def test_a_deleted_a_foreign_and_an_unknown_parent_are_not_available(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, parent: str
) -> None:
    answers = [await refused(stranger, model=parent), await refused(client, model="ft:luthier-tiny:luthier::nothing0")]
    await client.delete(f"/models/{parent}")
    answers.append(await refused(client, model=parent))
    for error, name in zip(answers, [parent, "ft:luthier-tiny:luthier::nothing0", parent], strict=True):
        assert error["message"].startswith(f"Model {name} is not available for fine-tuning or does not exist.")
        assert error["code"] == "model_not_available"


async def test_the_bytes_of_a_deleted_parent_stay_while_a_job_needs_them(
    ctx: Context, client: httpx.AsyncClient, parent: str
) -> None:
    id = (await create(client, model=parent))["id"]
    await client.delete(f"/models/{parent}")
    assert await unswept_models(ctx) == []
    await client.post(f"{JOBS}/{id}/cancel")
    assert await unswept_models(ctx) == [parent]


async def test_a_model_is_served_as_a_lora_where_the_job_says_so(client: httpx.AsyncClient) -> None:
    tuning = {"type": "vera", "vera": {"r": 8}, "serve_as": "lora"}
    job = await create(client, tuning=tuning)
    shown = {name: value for name, value in job["tuning"].items() if name.startswith("serve_")}
    assert shown == {"serve_as": "lora", "serve_rank": 8, "serve_min_share": 0.9}
    compressed = await create(client, tuning={"lora": {"r": 64}, "serve_rank": 16, "serve_min_share": 0.5})
    assert compressed["tuning"]["serve_rank"] == 16 and compressed["tuning"]["serve_min_share"] == 0.5
    assert not any(name.startswith("serve_") for name in (await create(client))["tuning"])
    for wrong, param in (
        ({"type": "bottleneck", "serve_as": "lora"}, "tuning.serve_as"),
        ({"type": "vera", "serve_as": "lora"}, "tuning.serve_rank"),
        ({"serve_as": "bitfit"}, "tuning.serve_as"),
        ({"serve_rank": 0}, "tuning.serve_rank"),
    ):
        assert (await refused(client, model="luthier-tiny", tuning=wrong))["param"] == param
