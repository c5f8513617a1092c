"""A base whose template prints the date trains with the day of the job; where its engine cannot, the job says so."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from service.operations import files, jobs, keys
from service.operations.jobs import NewJob
from service.recipes.base import Serving
from service.settings.settings import Settings
from service.storage.base import one_chunk
from tests.given.installation import installed
from tests.given.journey import rows
from tests.given.running_service import write_catalogue
from tests.given.stored_jobs import stored_events
from tests.given.tiny_models import make_tiny_base
from tests.given.work import claim_validation
from tests.servers.vllm import write_vllm_catalogue
from workers.jobs.loading import Tokenizers
from workers.jobs.validate import JobValidation


@pytest.mark.parametrize("engine", ["vllm", "embedded"])
@pytest.mark.parametrize("dated", [True, False])
async def test_a_job_whose_engine_shows_another_date_has_a_warning(tmp_path: Path, engine: str, dated: bool) -> None:
    base = make_tiny_base(tmp_path / "base")
    if dated:
        tokenizer = AutoTokenizer.from_pretrained(base.source)
        tokenizer.chat_template = "{{- strftime_now('%Y-%m-%d') -}}" + str(tokenizer.chat_template)
        tokenizer.save_pretrained(base.source)
    catalogue = tmp_path / "bases.toml"
    if engine == "vllm":
        serving = Serving(engine="vllm", tunings=frozenset({"lora"}))
        base = base.model_copy(update={"serving": serving, "learning_rate": {"lora": 1e-2}})
        write_vllm_catalogue(catalogue, base)
    else:
        write_catalogue(catalogue, base)
    async with installed(Settings(data_dir=tmp_path / "data", catalogue=catalogue)) as ctx:
        key = await keys.ensure_installation(ctx)
        assert key is not None
        caller = await keys.authenticate(ctx, key)
        async with files.incoming(ctx) as incoming:
            await incoming.store(one_chunk(rows(12)))
            file = await incoming.create(caller, files.NewFile("a.jsonl", "fine-tune"))
        job = (await jobs.create(ctx, caller, NewJob(model="tiny", training_file=file.id, seed=1))).job
        claim = await claim_validation(ctx, "worker")
        assert claim is not None
        await JobValidation(claim, ctx.catalogue.bases["tiny"], Tokenizers(), tmp_path / "scratch").run()
        warnings = [event for event in await stored_events(ctx, job.id) if event.level == "warn"]
    day = datetime.fromtimestamp(job.created_at, UTC).date().isoformat()
    assert [warning.data for warning in warnings] == ([{"date": day}] if dated and engine == "vllm" else [])
