"""What became of an upload is what a worker reads: of parts, cut anywhere; of lines that were wrong already then."""

import json
import random
from pathlib import Path

import httpx
import pytest

from service.installation.context import Context
from service.settings.settings import Settings
from tests.given.files_by_http import upload
from tests.given.running_service import write_catalogue
from tests.given.stored_jobs import state
from tests.given.tiny_models import make_tiny_base
from tests.given.uploads_by_http import complete, create, good, send_all
from tests.given.work import claim_validation
from workers.jobs.loading import Tokenizers
from workers.jobs.validate import JobValidation

QUESTION = {"role": "user", "content": "größe?"}
ROWS = [{"messages": [QUESTION, {"role": "assistant", "content": f"漢字 {number}"}]} for number in range(12)]
CONTENT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    catalogue = write_catalogue(tmp_path / "bases.toml", make_tiny_base(tmp_path / "base"))
    return Settings(data_dir=tmp_path / "data", engine_urls="http://127.0.0.1:1", catalogue=catalogue)


async def test_a_job_trains_on_a_file_of_three_parts(ctx: Context, client: httpx.AsyncClient, tmp_path: Path) -> None:
    first, second = sorted(random.Random(5).sample(range(1, len(CONTENT)), 2))
    made = await create(client, len(CONTENT))
    parts = await send_all(client, made["id"], [CONTENT[:first], CONTENT[first:second], CONTENT[second:]])
    file = good(await complete(client, made["id"], parts))["file"]
    body = {"model": "tiny", "training_file": file["id"], "hyperparameters": {"n_epochs": 1, "batch_size": 1}}
    job = good(await client.post("/fine_tuning/jobs", json=body))
    claim = await claim_validation(ctx, "worker")
    assert claim is not None
    await JobValidation(claim, ctx.catalogue.bases["tiny"], Tokenizers(), tmp_path / "scratch").run()
    validated = good(await client.get(f"/fine_tuning/jobs/{job['id']}"))
    assert (validated["status"], validated["error"]) == ("queued", None)
    assert (await state(ctx, job["id"])).total_steps == len(ROWS)


async def test_a_job_on_a_file_with_wrong_lines_fails_with_all_of_them(
    ctx: Context, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    file = await upload(client, CONTENT + b"[]\n" * 30 + b'{"prompt": "a"}\n' + CONTENT)
    assert (file["status"], file["status_details"].count("is not an object")) == ("error", 20)
    assert file["status_details"].startswith("Line 13: is not an object; line 14: ")
    assert file["status_details"].endswith("; line 32: is not an object; and 10 more lines")
    job = good(await client.post("/fine_tuning/jobs", json={"model": "tiny", "training_file": file["id"]}))
    claim = await claim_validation(ctx, "worker")
    assert claim is not None
    await JobValidation(claim, ctx.catalogue.bases["tiny"], Tokenizers(), tmp_path / "scratch").run()
    failed = good(await client.get(f"/fine_tuning/jobs/{job['id']}"))
    assert (failed["status"], failed["error"]["code"]) == ("failed", "invalid_training_file")
    events = good(await client.get(f"/fine_tuning/jobs/{job['id']}/events"))["data"]
    (found,) = (event["data"] for event in events if "problems" in (event.get("data") or {}))
    assert found["total"] == 31
    assert [problem["line"] for problem in found["problems"]] == list(range(13, 44))
