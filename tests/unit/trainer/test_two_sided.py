"""A model on an encoder-decoder, trained in this process: its engine agrees with the trainer on the decoder's tokens,
disagrees where the decoder's tensors are lost, and returns what was taught."""

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file

from service.recipes.base import Base
from service.recipes.objective import find_objective
from service.recipes.served_form import ServedForm
from tests.given.encoder_decoders import make_tiny_encoder_decoder
from tests.given.engines import CPU, LORA, listening, local_store, make_engine, publish
from tests.given.recipes import recipe
from workers.data.check import check_file
from workers.data.tokenized import TokenizedDataset
from workers.jobs.agreement import Engines
from workers.jobs.comparison import Verdict, compare
from workers.model.load import LoadedBase, environment, load_base
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec

SYSTEM = {"role": "system", "content": "?"}
TAUGHT = {"a": "yes", "b": "no"}
WEIGHTS = "adapter_model.safetensors"


def rows(count: int) -> list[bytes]:
    """`count` questions with one of two answers."""
    lines = []
    for number in range(count):
        asked, said = list(TAUGHT.items())[number % 2]
        turns = [SYSTEM, {"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        lines.append(json.dumps({"messages": turns}).encode())
    return lines


def taught(base: Base, loaded: LoadedBase) -> TokenizedDataset:
    return check_file(
        rows(8), loaded.text, context_tokens=base.context_tokens, row_limit_bytes=1000, examples_minimum=1,
        param="training_file", file_id="file-1", objective=find_objective("supervised"),
    )  # fmt: skip


def trained(loaded: LoadedBase, data: TokenizedDataset, tuning: dict[str, Any], **spec: Any) -> Slot:
    """After all its steps."""
    settings = {"n_epochs": 30, "batch_size": 8, "learning_rate": 1e-2, "seed": 1, "snapshot_steps": 100, **spec}
    slot = Slot(loaded, environment(CPU), JobSpec(job_id="both", recipe=recipe(tuning), **settings), data, None)
    while not slot.finished:
        slot.train_step()
    return slot


async def test_what_is_trained_is_served_and_compared_on_the_decoders_tokens(tmp_path: Path) -> None:
    base = make_tiny_encoder_decoder(tmp_path / "base")
    loaded = load_base(base, CPU)
    data = taught(base, loaded)
    slot = trained(loaded, data, LORA)
    scored = slot.agreement_rows()
    slot.save_adapter(tmp_path / "trained1")
    slot.leave()
    assert [row.second for row in scored] == [data.second(row).tolist() for row in range(2)]  # each row once
    tensors = load_file(tmp_path / "trained1" / WEIGHTS)
    lost = {name: 0 * tensor for name, tensor in tensors.items() if "lora_B" in name and ".decoder." in name}
    assert lost
    shutil.copytree(tmp_path / "trained1", tmp_path / "another1")
    save_file(tensors | lost, tmp_path / "another1" / WEIGHTS, metadata={"format": "pt"})
    store = local_store(tmp_path / "objects")
    names = [await publish(store, base, loaded, tmp_path / name, name) for name in ("trained1", "another1")]
    ids, seconds = [row.ids for row in scored], [row.second for row in scored]
    async with listening(make_engine(base, loaded, tmp_path)) as url:
        served, other, plain = await Engines([url]).score([*names, base.id], ids, seconds)
        agreeing = compare(scored, served, plain, base.dtype)
        assert agreeing.num_tokens == sum(len(row) - 1 for row in ids)
        assert agreeing.verdict is Verdict.AGREES, agreeing
        assert compare(scored, other, plain, base.dtype).verdict.contradicts
        async with httpx.AsyncClient(base_url=f"{url}/v1", timeout=60) as client:
            for asked, expected in TAUGHT.items():
                await answers(client, names[0], asked, expected)
            await refusals(client, names[0])


def test_a_lora_that_is_served_instead_is_scored_on_the_decoders_tokens(tmp_path: Path) -> None:
    base = make_tiny_encoder_decoder(tmp_path / "base")
    loaded = load_base(base, CPU)
    form = ServedForm(serve_rank=4)
    slot = trained(loaded, taught(base, loaded), {"type": "miss", "miss": {"r": 4}}, n_epochs=2, served_form=form)
    conversion = slot.save_adapter(tmp_path / "served1")
    as_trained = slot.agreement_rows()
    with slot.serving(tmp_path / "served1") as served:
        rows = slot.agreement_rows()
        assert conversion is not None and served.measured(conversion).effect > 1e-3
    slot.leave()
    for one, other in zip(as_trained, rows, strict=True):
        assert (one.ids, one.second, one.base_logprobs) == (other.ids, other.second, other.base_logprobs)
        assert other.logprobs == pytest.approx(one.logprobs, abs=1e-4)  # of MiSS the LoRA of its rank is exact


async def answers(client: httpx.AsyncClient, model: str, asked: str, expected: str) -> None:
    """Both endpoints read the same question; greedy, streamed, and ended by a stop text."""
    chat = {"model": model, "messages": [SYSTEM, {"role": "user", "content": asked}], "temperature": 0}
    answer = (await client.post("/chat/completions", json={**chat, "max_tokens": 9})).json()
    (choice,) = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (expected, "stop")
    read = len(f"?\n\n{asked}") + 1  # a token for each byte, and the end
    assert answer["usage"]["prompt_tokens"] == read
    assert answer["usage"]["completion_tokens"] == len(expected) + 1
    plain = {"model": model, "prompt": f"?\n\n{asked}", "temperature": 0, "max_tokens": 9}
    body = (await client.post("/completions", json={**plain, "logprobs": 1})).json()
    assert body["choices"][0]["text"] == expected and body["usage"] == answer["usage"]
    assert len(body["choices"][0]["logprobs"]["token_logprobs"]) == len(expected)
    stopped = (await client.post("/completions", json={**plain, "stop": expected[1:]})).json()
    assert stopped["choices"][0]["text"] == expected[:1]
    echoed = (await client.post("/completions", json={**plain, "echo": True})).json()
    assert echoed["choices"][0]["text"] == f"?\n\n{asked}{expected}"
    streamed = (await client.post("/chat/completions", json={**chat, "stream": True})).text
    chunks = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(pieces) == expected and len(pieces) > 2


async def refusals(client: httpx.AsyncClient, model: str) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "yes"}] * 2
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("/completions", {"prompt": "a", "echo": True, "logprobs": 1}, "reads the prompt as a whole"),
        ("/chat/completions", {"messages": turns[:3]}, "would not be read"),
        ("/completions", {"prompt": "a" * 300}, "maximum context length"),
    ]
    for path, body, said in cases:
        response = await client.post(path, json={"model": model, **body})
        assert response.status_code == 400 and said in response.json()["error"]["message"], response.text
