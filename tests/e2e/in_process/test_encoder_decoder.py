"""A job on an encoder-decoder, over HTTP: its file is checked and shown, a real trainer trains it, an engine agrees on
what its decoder writes, and both endpoints answer as it was taught."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.installation.context import Context
from service.operations.keys import Caller
from tests.given.encoder_decoders import make_tiny_encoder_decoder
from tests.given.engines import engine_of, installed_with
from tests.given.stored_jobs import messages
from tests.given.worker import ended, worker

pytestmark = pytest.mark.slow
SYSTEM = {"role": "system", "content": "?"}
TAUGHT = {"a": "yes", "b": "no"}


def rows(count: int) -> bytes:
    """`count` questions with one of two answers."""
    lines = []
    for number in range(count):
        asked, said = list(TAUGHT.items())[number % 2]
        turns = [SYSTEM, {"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        lines.append(json.dumps({"messages": turns}))
    return "\n".join(lines).encode()


@pytest.fixture
async def ctx(tmp_path: Path) -> AsyncIterator[Context]:
    """An installation with one encoder-decoder, whose engine is to listen on a free port."""
    async with installed_with(make_tiny_encoder_decoder(tmp_path / "base"), tmp_path) as ctx:
        yield ctx


async def create(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    files = {"file": ("rows.jsonl", rows(24))}
    file = (await client.post("/files", files=files, data={"purpose": "fine-tune"})).json()["id"]
    settings = {"n_epochs": 12, "batch_size": 8, "learning_rate_multiplier": 3.0}
    method = {"type": "supervised", "supervised": {"hyperparameters": settings}}
    body = {"model": "tiny", "training_file": file, "validation_file": file, "seed": 1, "method": method, **changes}
    return await client.post("/fine_tuning/jobs", json=body)


async def test_a_question_is_learned_announced_and_answered(
    ctx: Context, caller: Caller, client: httpx.AsyncClient
) -> None:
    async with engine_of(ctx), worker(ctx):
        created = await create(client)
        assert created.status_code == 200, created.text
        (job,) = await ended(ctx, caller, created.json()["id"])
        assert job.status == "succeeded", job.error
        said = await messages(ctx, job.id)
        assert any("log-probabilities agree with its training" in one for one in said), said
        name = str(job.fine_tuned_model)
        for asked, expected in TAUGHT.items():
            chat = {"model": name, "messages": [SYSTEM, {"role": "user", "content": asked}], "temperature": 0}
            answer = (await client.post("/chat/completions", json={**chat, "max_tokens": 9})).json()
            (choice,) = answer["choices"]
            assert (choice["message"]["content"], choice["finish_reason"]) == (expected, "stop")
            written = len(expected) + 1  # a token for each byte, and the end
            assert answer["usage"]["completion_tokens"] == written
            plain = {"model": name, "prompt": f"?\n\n{asked}", "temperature": 0, "max_tokens": 9}
            body = (await client.post("/completions", json={**plain, "logprobs": 1})).json()
            assert body["choices"][0]["text"] == expected and body["usage"] == answer["usage"]
            assert len(body["choices"][0]["logprobs"]["token_logprobs"]) == len(expected)
            stopped = (await client.post("/completions", json={**plain, "stop": expected[1:]})).json()
            assert stopped["choices"][0]["text"] == expected[:1]
            streamed = (await client.post("/chat/completions", json={**chat, "stream": True})).text
            chunks = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
            pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
            assert "".join(pieces) == expected and len(pieces) > 2
        echo = {"model": name, "prompt": "a", "echo": True, "logprobs": 1}
        refused = await client.post("/completions", json=echo)
        assert refused.status_code == 400 and "reads the prompt as a whole" in refused.json()["error"]["message"]
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "yes"}] * 2
        refused = await client.post("/chat/completions", json={"model": name, "messages": turns[:3]})
        assert refused.status_code == 400 and "would not be read" in refused.json()["error"]["message"]
    model = (await client.get(f"/models/{name}")).json()
    assert (model["kind"], model["task"]) == ("encoder-decoder", "generate")


async def test_what_does_not_fit_is_refused_when_it_is_created(client: httpx.AsyncClient) -> None:
    for changes, said in (
        ({"tuning": {"type": "prefix"}}, "'prefix'"),
        ({"forgetting_report": True}, "leave it out"),
        ({"method": {"type": "dpo"}}, "use 'supervised'"),
    ):
        response = await create(client, **changes)
        assert response.status_code == 400 and said in response.json()["error"]["message"], response.text
    adapter = {"file": ("adapter.zip", b"PK")}
    response = await client.post("/models", data={"base": "tiny"}, files=adapter)
    assert response.status_code == 400 and "not a causal language model" in response.json()["error"]["message"]
