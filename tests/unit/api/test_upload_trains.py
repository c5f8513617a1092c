"""A training file that came in parts, cut anywhere, is the file that a worker reads."""

import json
import random
from pathlib import Path

import httpx
import pytest

from service.installation.context import Context
from service.settings.settings import Settings
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
    upload = await create(client, len(CONTENT))
    parts = await send_all(client, upload["id"], [CONTENT[:first], CONTENT[first:second], CONTENT[second:]])
    file = good(await complete(client, upload["id"], parts))["file"]
    body = {"model": "tiny", "training_file": file["id"], "hyperparameters": {"n_epochs": 1, "batch_size": 1}}
    job = good(await client.post("/fine_tuning/jobs", json=body))
    claim = await claim_validation(ctx, "worker")
    assert claim is not None
    await JobValidation(claim, ctx.catalogue.bases["tiny"], Tokenizers(), tmp_path / "scratch").run()
    validated = good(await client.get(f"/fine_tuning/jobs/{job['id']}"))
    assert (validated["status"], validated["error"]) == ("queued", None)
    assert (await state(ctx, job["id"])).total_steps == len(ROWS)
