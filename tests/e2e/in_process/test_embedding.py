"""An embedding model's whole way, by OpenAI's SDK: pairs checked, an encoder trained on them by a real trainer,
announced by an engine that returns the same vectors, called, and what it finds of pairs that it has not seen.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from service.installation.context import Context
from service.operations.keys import Caller
from tests.given.encoders import make_tiny_encoder
from tests.given.engines import engine_of, installed_with
from tests.given.stored_jobs import messages
from tests.given.worker import artifact, ended, worker

pytestmark = pytest.mark.slow
TOPICS = {"apple": "red", "zinc": "ore", "milk": "cow", "boat": "sea", "sofa": "room", "jazz": "horn"}
TOPICS |= {"lamp": "wick", "king": "crown", "frog": "pond", "glue": "stick"}


def pairs(numbers: range) -> list[dict[str, str]]:
    """A word, and what belongs to it; the numbers beside them say nothing."""
    return [
        {"anchor": f"{word} {number}", "positive": f"{number * 7 % 90} {other}"}
        for number in numbers
        for word, other in TOPICS.items()
    ]


HELD_OUT = pairs(range(50, 51))


@pytest.fixture
async def ctx(tmp_path: Path) -> AsyncIterator[Context]:
    async with installed_with(make_tiny_encoder(tmp_path / "base"), tmp_path) as ctx:
        yield ctx


async def recall(sdk: openai.AsyncOpenAI, model: str) -> float:
    """The share of held-out anchors whose own positive is the nearest of all. The SDK asks for base64."""
    found = []
    for field in ("anchor", "positive"):
        response = await sdk.embeddings.create(model=model, input=[pair[field] for pair in HELD_OUT])
        assert [one.index for one in response.data] == list(range(len(HELD_OUT)))
        assert response.usage.prompt_tokens == response.usage.total_tokens > 0
        found.append(np.array([one.embedding for one in response.data]))
    anchors, positives = found
    assert np.linalg.norm(anchors, axis=1) == pytest.approx(1, abs=1e-5)
    return float(((anchors @ positives.T).argmax(axis=1) == np.arange(len(HELD_OUT))).mean())


async def test_an_encoder_learns_what_belongs_together(
    ctx: Context, caller: Caller, client: httpx.AsyncClient, base_url: str, key: str
) -> None:
    async with engine_of(ctx), worker(ctx), openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as sdk:
        before = await recall(sdk, "tiny")
        files = []
        for numbers in (range(0, 90, 9), range(3, 90, 40)):
            content = "\n".join(map(json.dumps, pairs(numbers))).encode()
            files.append(await sdk.files.create(file=("pairs.jsonl", content), purpose="fine-tune"))
        body = {
            "model": "tiny",
            "training_file": files[0].id,
            "validation_file": files[1].id,
            "seed": 1,
            "method": {"type": "embedding", "embedding": {"hyperparameters": {"n_epochs": 12, "batch_size": 10}}},
        }
        response = await client.post("/fine_tuning/jobs", json=body)
        assert response.status_code == 200, response.text
        (job,) = await ended(ctx, caller, response.json()["id"])
        assert job.status == "succeeded", job.error
        name = str(job.fine_tuned_model)
        assert any("An engine computes the model as it was trained" in said for said in await messages(ctx, job.id))
        after = await recall(sdk, name)
        plain = await sdk.embeddings.create(model=name, input="apple 7", encoding_format="float")
        coded = await sdk.embeddings.create(model=name, input=["apple 7"], dimensions=32)
        assert plain.data[0].embedding == coded.data[0].embedding
        with pytest.raises(openai.BadRequestError, match="have 32 dimensions"):
            await sdk.embeddings.create(model=name, input="apple 7", dimensions=8)
        with pytest.raises(openai.BadRequestError, match="call it at /v1/embeddings"):
            await sdk.completions.create(model=name, prompt="apple 7")
        with pytest.raises(openai.BadRequestError, match="vectors of texts it returns at /v1/embeddings"):
            await sdk.completions.create(model="tiny", prompt="apple 7")
    assert before <= 0.3 and after >= 0.8, (before, after)
    manifest = json.loads((artifact(ctx, name) / "manifest.json").read_text())
    assert manifest["head"] == {"problem_type": "embedding", "labels": [], "pooling": "mean"}
    assert manifest["metrics"]["full_valid_accuracy"] > 0.7
    assert not (artifact(ctx, name) / "head.safetensors").exists()
    tasks = {model["id"]: model["task"] for model in (await client.get("/models")).json()["data"]}
    assert tasks["tiny"] == "embed" and tasks[name] == "embed"
