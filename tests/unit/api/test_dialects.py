"""Settings of other services and trainers: refused, with the spelling that works here; and the bodies they come in."""

from typing import Any

import httpx
import pytest

from service.recipes.dialects import spelling_here
from tests.given.jobs_by_http import JOBS, create

GOOD: dict[str, Any] = {"model": "luthier-tiny", "training_file": "file-x"}


async def refusal(client: httpx.AsyncClient, fields: dict[str, Any]) -> tuple[str, str, str]:
    response = await client.post(JOBS, json=GOOD | fields)
    assert response.status_code == 400
    error = response.json()["error"]
    return error["param"], error["code"], error["message"]


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"hyperparameters": {"lora": True}}, "hyperparameters.lora", '"tuning": {"type": "lora"}'),
        ({"hyperparameters": {"lora_r": 8}}, "hyperparameters.lora_r", '"lora": {"r": 16}'),
        ({"hyperparameters": {"lora_alpha": 8}}, "hyperparameters.lora_alpha", '"lora": {"alpha": 32}'),
        ({"hyperparameters": {"loraRank": 8}}, "hyperparameters.loraRank", '"lora": {"r": 16}'),
        ({"hyperparameters": {"peft": {}}}, "hyperparameters.peft", '"tuning": {"type": "lora"}'),
        ({"hyperparameters": {"learning_rate": 2e-5}}, "hyperparameters.learning_rate", "not an absolute one"),
        ({"hyperparameters": {"epochs": 3}}, "hyperparameters.epochs", '"n_epochs"'),
        ({"hyperparameters": {"num_train_epochs": 3}}, "hyperparameters.num_train_epochs", '"n_epochs"'),
        (
            {"hyperparameters": {"per_device_train_batch_size": 3}},
            "hyperparameters.per_device_train_batch_size",
            '"batch_size"',
        ),
        ({"hyperparameters": {"seed": 3}}, "hyperparameters.seed", "in the job itself"),
        ({"hyperparameters": {"warmup_ratio": 0.1}}, "hyperparameters.warmup_ratio", "It is fixed here"),
        ({"hyperparameters": {"beta": 0.1}}, "hyperparameters.beta", '"dpo": {"hyperparameters": {"beta": 0.1}}'),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"lr": 1}}}},
            "method.supervised.hyperparameters.lr",
            '"learning_rate_multiplier"',
        ),
        ({"tuning": {"type": "lora", "lora": {"lora_alpha": 8}}}, "tuning.lora.lora_alpha", '"lora": {"alpha": 32}'),
        ({"tuning": {"type": "lora", "r": 8}}, "tuning.r", '"lora": {"r": 16}'),
        ({"lora": True}, "lora", '"tuning": {"type": "lora"}'),
        ({"n_epochs": 3}, "n_epochs", "in the hyperparameters"),
    ],
)
async def test_a_setting_of_another_dialect_is_refused_with_its_spelling(
    client: httpx.AsyncClient, fields: dict[str, Any], param: str, says: str
) -> None:
    found, code, message = await refusal(client, fields)
    assert (found, code) == (param, "unknown_parameter")
    assert message.startswith(f"Unknown parameter: '{param}'. ") and says in message


async def test_an_unknown_setting_of_no_dialect_is_named_alone(client: httpx.AsyncClient) -> None:
    assert (await refusal(client, {"hyperparameters": {"mood": 1}}))[2] == "Unknown parameter: 'hyperparameters.mood'."
    assert spelling_here("modle") == spelling_here("") == spelling_here("seed") == ""


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"model": "luthier-tiny", "training_file": "a", "training_file": "b"}', "training_file"),
        ('{"model": "luthier-tiny", "hyperparameters": {"n_epochs": 1, "n_epochs": 2}}', "hyperparameters.n_epochs"),
        ('{"integrations": [{"type": "wandb", "wandb": {"tags": [], "tags": []}}]}', "integrations[0].wandb.tags"),
    ],
)
async def test_a_doubled_key_in_a_body_is_refused_by_its_path(client: httpx.AsyncClient, body: str, param: str) -> None:
    response = await client.post(JOBS, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert error["message"] == f"'{param}' is in the body of your request twice. Send it once."


async def test_a_doubled_key_in_a_chat_is_refused_by_its_path(client: httpx.AsyncClient) -> None:
    body = '{"model": "luthier-tiny", "messages": [{"role": "user", "content": "a", "content": "b"}]}'
    response = await client.post("/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages[0].content")


async def test_every_integer_may_be_written_with_a_point(client: httpx.AsyncClient) -> None:
    hyperparameters = {"n_epochs": 2.0, "batch_size": 1.0, "learning_rate_multiplier": 1}
    job = await create(client, seed=7.0, hyperparameters=hyperparameters, tuning={"type": "lora", "lora": {"r": 4.0}})
    assert (job["seed"], job["tuning"]["lora"]["r"]) == (7, 4)
    assert type(job["seed"]) is int and type(job["hyperparameters"]["n_epochs"]) is int
    upload = {"filename": "a", "purpose": "fine-tune", "bytes": 5.0, "mime_type": "text/jsonl"}
    expires = {"anchor": "created_at", "seconds": 3600.0}
    made = await client.post("/uploads", json=upload | {"expires_after": expires})
    assert made.status_code == 200, made.text
    assert made.json()["bytes"] == 5
