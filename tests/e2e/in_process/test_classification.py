"""A classifier's whole way over HTTP, on an encoder and on a causal base: files checked, trained by a real trainer,
announced by an engine that computes the same, called by labels, and refused where it is not called."""

import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.installation.context import Context
from service.operations.keys import Caller
from tests.given.encoders import make_tiny_encoder
from tests.given.engines import engine_of, installed_with
from tests.given.stored_jobs import messages
from tests.given.tiny_models import make_tiny_base
from tests.given.worker import artifact, ended, worker

pytestmark = pytest.mark.slow
WORDS = {"fruit": ("apple", "pear", "plum"), "metal": ("iron", "lead", "zinc")}
LABELS = sorted(WORDS)


def rows(count: int, **changes: Any) -> bytes:
    """`count` texts that name a fruit or a metal."""
    lines = []
    for number in range(count):
        label = LABELS[number % 2]
        lines.append({"text": f"{number} {WORDS[label][number // 2 % 3]}", "label": label, **changes})
    return "\n".join(map(json.dumps, lines)).encode()


@pytest.fixture(params=["encoder", "causal"])
async def ctx(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Context]:
    """An installation with one base of that kind, whose engine is to listen on a free port."""
    base = make_tiny_encoder(tmp_path / "base") if request.param == "encoder" else make_tiny_base(tmp_path / "base")
    async with installed_with(base, tmp_path) as ctx:
        yield ctx


async def upload(client: httpx.AsyncClient, content: bytes) -> str:
    files = {"file": ("rows.jsonl", content)}
    return str((await client.post("/files", files=files, data={"purpose": "fine-tune"})).json()["id"])


async def create(client: httpx.AsyncClient, train: bytes, valid: bytes, **hyperparameters: Any) -> str:
    settings = {"n_epochs": 6, "batch_size": 8, **hyperparameters}
    body = {
        "model": "tiny",
        "training_file": await upload(client, train),
        "validation_file": await upload(client, valid),
        "seed": 1,
        "method": {"type": "classification", "classification": {"hyperparameters": settings}},
    }
    response = await client.post("/fine_tuning/jobs", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


async def test_a_classifier_is_trained_announced_and_called(
    ctx: Context, caller: Caller, client: httpx.AsyncClient
) -> None:
    async with engine_of(ctx), worker(ctx):
        (job,) = await ended(ctx, caller, await create(client, rows(48), rows(12), class_weights="balanced"))
        assert job.status == "succeeded", job.error
        name = job.fine_tuned_model
        assert any("An engine computes the model as it was trained" in said for said in await messages(ctx, job.id))
        texts = ["7 apple", "8 zinc", "9 plum"]
        response = await client.post("/classifications", json={"model": name, "input": texts})
        assert response.status_code == 200, response.text
        said = response.json()
        assert [one["label"] for one in said["data"]] == ["fruit", "metal", "fruit"]
        for one in said["data"]:
            assert one["num_classes"] == 2 and sum(one["probs"]) == pytest.approx(1)
            assert one["scores"] == dict(zip(LABELS, one["probs"], strict=True))
        assert said["usage"]["prompt_tokens"] > 15 and said["model"] == name
        await refusals(client, str(name))
    model = (await client.get(f"/models/{name}")).json()
    assert (model["kind"], model["task"]) == (ctx.catalogue.bases["tiny"].kind, "classify")
    found = (await client.get(f"/fine_tuning/jobs/{job.id}")).json()
    assert len(found["result_files"]) == 2
    table = (await client.get(f"/files/{found['result_files'][1]}")).json()
    assert table["filename"] == "confusion_matrix.csv" and table["purpose"] == "fine-tune-results"
    counts = list(csv.reader(io.StringIO((artifact(ctx, name) / "confusion_matrix.csv").read_text())))
    assert counts[0][1:] == LABELS and sum(int(cell) for row in counts[1:] for cell in row[1:]) == 12
    manifest = json.loads((artifact(ctx, name) / "manifest.json").read_text())
    assert manifest["head"]["labels"] == LABELS and manifest["metrics"]["full_valid_macro_f1"] > 0.6


@pytest.mark.parametrize("ctx", ["causal"], indirect=True)
async def test_votes_are_combined_and_the_result_can_be_downloaded(
    ctx: Context, caller: Caller, client: httpx.AsyncClient
) -> None:
    """Two annotators are right; one always says fruit, and another's vote is missing now and then."""
    lines = []
    for number in range(48):
        label = LABELS[number % 2]
        votes = {"anna": label, "ben": label, "carl": "fruit"} | ({} if number % 5 else {"dora": "metal"})
        lines.append({"text": f"{number} {WORDS[label][number // 2 % 3]}", "votes": votes})
    content = "\n".join(map(json.dumps, lines)).encode()
    async with engine_of(ctx), worker(ctx):
        (job,) = await ended(ctx, caller, await create(client, content, rows(12)))
    assert job.status == "succeeded", job.error
    found = (await client.get(f"/fine_tuning/jobs/{job.id}")).json()["result_files"]
    named = {(await client.get(f"/files/{id}")).json()["filename"]: id for id in found}
    assert set(named) == {"step_metrics.csv", "combined_labels.csv", "confusion_matrix.csv"}
    response = await client.get(f"/files/{named['combined_labels.csv']}/content", headers={"Accept": "text/csv"})
    table = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["label"] for row in table] == [LABELS[number % 2] for number in range(48)]
    assert all(float(row["probability"]) > 0.9 for row in table)


async def refusals(client: httpx.AsyncClient, name: str) -> None:
    """A model of one task at another's route."""
    chat = {"model": name, "messages": [{"role": "user", "content": "Hi"}]}
    for path, body in (("chat/completions", chat), ("completions", {"model": name, "prompt": "Hi"})):
        response = await client.post(f"/{path}", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, "model")
        assert error["message"].endswith("call it at /v1/classifications.")
    response = await client.post("/classifications", json={"model": "tiny", "input": "Hi"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "model_not_supported")


async def test_labels_are_checked_line_by_line(ctx: Context, caller: Caller, client: httpx.AsyncClient) -> None:
    unknown = rows(3) + b'\n{"text": "4 gold", "label": "precious"}'
    missing = rows(12) + b'\n{"text": "4 gold"}\n{"text": "5 tin", "label": ""}'
    one = rows(12, label="fruit")
    async with worker(ctx):
        ids = [await create(client, train, rows(3)) for train in (missing, one)]
        ids.append(await create(client, rows(12), unknown))
        ids.append(await create(client, rows(12), rows(3), class_weights={"wood": 2.0}))
        jobs = await ended(ctx, caller, *ids)
    errors = [(job.error or {})["message"] for job in jobs]
    assert 'Example 13: has no "label"' in errors[0] and "Example 14: is empty (label)" in errors[0]
    assert "only the label 'fruit'" in errors[1]
    assert "Example 4: has the label 'precious', which the training file lacks; it has fruit, metal" in errors[2]
    assert "names 'wood'" in errors[3]
