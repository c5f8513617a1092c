"""What the embedded engine returns for texts: as if each came alone, by labels, as a score or as a vector, and what it
refuses."""

import base64
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from service.domain.model import HeadConfig
from service.recipes.base import Base
from tests.given.encoders import make_tiny_encoder
from tests.given.engines import PROMPT, calling, local_store, make_engine, publish, save_adapter
from tests.given.tiny_models import CONTEXT_TOKENS, make_tiny_base
from workers.data.render import Renderer, encode_prompt
from workers.engines.embedded.reading import _passes
from workers.model.head import HEAD, Head, save_head
from workers.model.load import LoadedBase, load_base
from workers.model.states import hidden_states
from workers.tunings import open_tuning
from workers.tunings.base import Chunk

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TEXTS = ["a", "some longer text, which needs padding", "bc", "x" * 90]
LABELS = ["high", "low", "mid"]
HEADS = {
    "one": HeadConfig(problem_type="single_label_classification", labels=LABELS, pooling="mean"),
    "some": HeadConfig(problem_type="multi_label_classification", labels=LABELS, pooling="cls"),
    "score": HeadConfig(problem_type="regression", labels=[], pooling="last"),
    "vector": HeadConfig(problem_type="embedding", labels=[], pooling="mean"),
}
Served = tuple[httpx.AsyncClient, LoadedBase, dict[str, Path]]


def save_model(loaded: LoadedBase, folder: Path, config: HeadConfig, tuning: dict[str, object] | None) -> Path:
    """An adapter and a head that were never trained."""
    save_adapter(loaded, folder, 1, *([tuning] if tuning else []))
    head = Head(config, 32, CPU)
    generator = torch.Generator().manual_seed(2)
    for parameter in head.parameters.values():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    save_head(folder, head.parameters, config)
    return folder


@pytest.fixture(params=["encoder", "causal"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    """An engine of either kind of base, with a model of each kind of head, a prompt-tuned one, one that generates."""
    make = make_tiny_encoder if request.param == "encoder" else make_tiny_base
    base: Base = make(tmp_path / "base")
    loaded = load_base(base, CPU)
    folders = {name: save_model(loaded, tmp_path / name, config, None) for name, config in HEADS.items()}
    if base.kind == "causal":
        folders["prompt"] = save_model(loaded, tmp_path / "prompt", HEADS["score"], PROMPT)
    folders["text"] = save_adapter(loaded, tmp_path / "text", 3)
    store = local_store(tmp_path / "objects")
    for name, folder in folders.items():
        await publish(store, base, loaded, folder, name.rjust(8, "0"))
    async with calling(make_engine(base, loaded, tmp_path)) as client:
        yield client, loaded, folders


def named(publication: str) -> str:
    return f"ft:tiny:acme::{publication.rjust(8, '0')}"


async def ask(client: httpx.AsyncClient, model: str, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/classifications", json={"model": named(model), **body})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


@torch.no_grad()
def alone(loaded: LoadedBase, folder: Path, ids: list[int]) -> list[float]:
    """What the model returns, by one plain forward pass."""
    tuning = open_tuning(folder, loaded.model, "reference")
    tuning.activate()
    try:
        ids_1T = torch.tensor([ids])
        hidden = hidden_states(tuning.model, loaded.kind, tuning.inputs(Chunk(ids_1T, None, torch.tensor([len(ids)]))))
    finally:
        tuning.detach()
    head = Head(HEADS.get(folder.name, HEADS["score"]), 32, CPU)
    for name, parameter in head.parameters.items():
        parameter.copy_(load_file(folder / HEAD)[name])
    values: list[float] = head.values(head.logits(hidden, torch.ones_like(ids_1T)))[0].tolist()
    return values


async def test_every_text_gets_what_it_would_get_alone(served: Served) -> None:
    client, loaded, folders = served
    rows = [encode_prompt(loaded.text, text) for text in TEXTS]
    for name in folders.keys() - {"text", "vector"}:
        said = await ask(client, name, input=TEXTS)
        for one, ids in zip(said["data"], rows, strict=True):
            assert one["probs"] == pytest.approx(alone(loaded, folders[name], ids), abs=1e-5), name
        assert [one["index"] for one in said["data"]] == [0, 1, 2, 3]
        assert said["usage"]["prompt_tokens"] == sum(map(len, rows))
        assert (await ask(client, name, input=rows))["data"] == said["data"]
        assert (await ask(client, name, input=rows[0]))["data"][0]["probs"] == pytest.approx(
            said["data"][0]["probs"], abs=1e-5
        )


async def test_vectors_are_the_models_in_either_encoding(served: Served) -> None:
    """Of an encoder its own mean, too, when it is called by itself."""
    client, loaded, folders = served
    rows = [encode_prompt(loaded.text, text) for text in TEXTS]

    async def asked(model: str, **body: Any) -> dict[str, Any]:
        response = await client.post("/v1/embeddings", json={"model": model, **body})
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    said = await asked(named("vector"), input=TEXTS, user="me")
    assert said["usage"] == dict.fromkeys(("prompt_tokens", "total_tokens"), sum(map(len, rows)))
    for index, (one, ids) in enumerate(zip(said["data"], rows, strict=True)):
        assert (one["index"], one["object"], len(one["embedding"])) == (index, "embedding", 32)
        assert one["embedding"] == pytest.approx(alone(loaded, folders["vector"], ids), abs=1e-5)
        assert math.hypot(*one["embedding"]) == pytest.approx(1, abs=1e-5)
    assert (await asked(named("vector"), input=rows, dimensions=32))["data"] == said["data"]
    packed = await asked(named("vector"), input=TEXTS, encoding_format="base64")
    for one, plain in zip(packed["data"], said["data"], strict=True):
        assert np.frombuffer(base64.b64decode(one["embedding"]), "<f4").tolist() == plain["embedding"]
    if loaded.kind == "encoder":
        (one,) = (await asked("tiny", input=rows[1]))["data"]
        with torch.no_grad():
            ids_1T = torch.tensor([rows[1]])
            states_1TH = loaded.model(input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T)).last_hidden_state
        expected = torch.nn.functional.normalize(states_1TH.mean(1), dim=-1)[0]
        assert one["embedding"] == pytest.approx(expected.tolist(), abs=1e-5)
        assert math.dist(one["embedding"], said["data"][1]["embedding"]) > 0.1


async def test_what_has_no_vector_is_refused_with_its_reason(served: Served) -> None:
    client, loaded, _ = served
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"model": named("vector"), "input": [7] * (CONTEXT_TOKENS + 1)}, "input", "maximum context length"),
        ({"model": named("vector"), "input": "a", "dimensions": 16}, "dimensions", "have 32 dimensions"),
        ({"model": named("vector"), "input": []}, "input", "Invalid value"),
        ({"model": named("vector"), "input": "a", "encoding_format": "int8"}, "encoding_format", "Invalid value"),
        ({"model": named("one"), "input": "a"}, "model", "call it at /v1/classifications."),
        ({"model": named("text"), "input": "a"}, "model", "call it at /v1/chat/completions or /v1/completions"),
    ]
    if loaded.kind == "causal":
        cases.append(({"model": "tiny", "input": "a"}, "model", "call it at /v1/chat/completions"))
    for body, param, said in cases:
        response = await client.post("/v1/embeddings", json=body)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["param"] == param and said in error["message"], error
    for path, given in (("classifications", {"input": "a"}), ("completions", {"prompt": "a"})):
        response = await client.post(f"/v1/{path}", json={"model": named("vector"), **given})
        assert response.status_code == 400
        assert response.json()["error"]["message"].endswith("call it at /v1/embeddings.")


async def test_labels_are_named_and_a_score_is_a_number(served: Served) -> None:
    client, _, _ = served
    (one,) = (await ask(client, "one", input="a", user="me"))["data"]
    assert sum(one["probs"]) == pytest.approx(1) and one["num_classes"] == 3
    assert list(one["scores"]) == LABELS and one["label"] == LABELS[one["probs"].index(max(one["probs"]))]
    (some,) = (await ask(client, "some", input="a"))["data"]
    assert some["labels"] == [name for name, value in some["scores"].items() if value > 0.5]
    (score,) = (await ask(client, "score", input="a"))["data"]
    assert score["label"] is None and score["probs"] == [score["score"]]


async def test_a_conversation_is_read_as_in_training(served: Served) -> None:
    client, loaded, folders = served
    if loaded.kind == "encoder":
        return
    asked, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
    ids = Renderer(loaded.text).answered([asked, answer])
    (score,) = (await ask(client, "score", messages=[asked, answer]))["data"]
    assert score["score"] == pytest.approx(alone(loaded, folders["score"], ids)[0], abs=1e-5)
    body = {"model": named("score"), "messages": [asked]}
    refused = await client.post("/v1/classifications", json=body)
    assert refused.status_code == 400 and "the assistant's answer" in refused.json()["error"]["message"]


async def test_what_cannot_be_read_is_refused_with_its_reason(served: Served) -> None:
    client, loaded, _ = served
    longest = [7] * CONTEXT_TOKENS
    assert len((await ask(client, "one", input=longest))["data"]) == 1
    cases: list[tuple[dict[str, Any], str]] = [
        ({"model": named("one"), "input": [*longest, 7]}, "maximum context length"),
        ({"model": named("one")}, "must be given"),
        ({"model": named("one"), "input": [[10_000]]}, "The input holds the token 10000"),
        ({"model": named("text"), "input": "a"}, "call it at /v1/chat/completions or /v1/completions"),
        ({"model": "tiny", "input": "a"}, "call it at" if loaded.kind == "causal" else "has no labels of its own"),
    ]
    for body, said in cases:
        response = await client.post("/v1/classifications", json=body)
        assert response.status_code == 400 and said in response.json()["error"]["message"], response.text
    for path, body in (
        ("completions", {"prompt": "a"}),
        ("chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
    ):
        response = await client.post(f"/v1/{path}", json={"model": named("one"), **body})
        assert response.status_code == 400
        assert response.json()["error"]["message"].endswith("call it at /v1/classifications.")


def test_passes_have_bounded_tokens_and_every_row_once() -> None:
    lengths = [5, 2000, 3, 700, 700, 700, 4, 3000]
    passes = _passes(lengths)
    assert sorted(place for places in passes for place in places) == list(range(8))
    assert all(len(places) == 1 or len(places) * max(lengths[place] for place in places) <= 2048 for places in passes)
