"""The error tables of OpenAI's API, through the official SDK: the exception's class, code, param and message."""

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio
from fastapi import FastAPI
from openai.types.fine_tuning.fine_tuning_job import Error

from service.api.app import create_app
from service.installation.context import Context
from service.operations import keys
from service.settings.settings import Settings
from tests.contract.creation_errors import CREATION
from tests.contract.error_table import ROWS, Api, Call, row
from tests.contract.file_errors import FILES
from tests.contract.state_errors import STATES
from tests.contract.status_errors import BY_STATUS
from tests.given.installation import installed
from tests.given.running_service import write_catalogue
from tests.given.scripted_engine import ScriptedEngine, scripted_engine
from tests.given.served_api import served
from tests.given.tiny_models import make_tiny_base
from tests.given.work import claim_validation
from workers.jobs.loading import Tokenizers
from workers.jobs.validate import JobValidation

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalogue")
    return write_catalogue(folder / "bases.toml", make_tiny_base(folder / "tiny"))


@pytest.fixture
def database_url() -> str:
    """The embedded database alone: what is asked here is decided before and behind it."""
    return ""


@pytest.fixture
def settings(tmp_path: Path, catalogue: Path, engine: ScriptedEngine) -> Settings:
    return limited(tmp_path / "data", catalogue, engine)


def limited(folder: Path, catalogue: Path, engine: ScriptedEngine) -> Settings:
    return Settings(data_dir=folder, engine_urls=engine.url, catalogue=catalogue, file_limit_bytes=50_000)


@pytest.fixture
async def api(app: FastAPI, ctx: Context, base_url: str, key: str, engine: ScriptedEngine) -> AsyncIterator[Api]:
    async with openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as sdk:
        api = Api(sdk, app, ctx, engine, "")
        api.file = await api.upload(*ROWS)
        yield api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """For calls that are refused: what they make on their way is their own, so that they share one installation."""
    async with scripted_engine() as engine:
        settings = limited(tmp_path_factory.mktemp("standing") / "data", catalogue, engine)
        async with installed(settings) as ctx:
            key, app = await keys.ensure_installation(ctx), create_app(ctx)
            async with served(app) as url, openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as sdk:
                api = Api(sdk, app, ctx, engine, "")
                api.file = await api.upload(*ROWS)
                yield api


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("call", "code", "param", "message"), CREATION + STATES)
async def test_a_call_that_is_refused(
    standing: Api, call: Call, code: str | None, param: str | None, message: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await call(standing)
    assert (raised.value.code, raised.value.param, raised.value.type) == (code, param, "invalid_request_error")
    assert message in raised.value.message


@pytest.mark.parametrize(("call", "kind", "type_", "code", "param", "message"), BY_STATUS)
async def test_an_answer_that_is_an_error(
    api: Api,
    call: Call,
    kind: type[openai.APIStatusError],
    type_: str,
    code: str | None,
    param: str | None,
    message: str,
) -> None:
    with pytest.raises(kind) as raised:
        await call(api)
    error = raised.value
    assert (type(error), error.type, error.code, error.param) == (kind, type_, code, param)
    assert message in error.message


async def error_of(api: Api, job_id: str, scratch: Path) -> Error:
    """Why the job failed, once its files are checked."""
    claim = await claim_validation(api.ctx, "worker_1")
    assert claim is not None
    await JobValidation(claim, api.ctx.catalogue.bases["tiny"], Tokenizers(), scratch).run()
    job = await api.sdk.fine_tuning.jobs.retrieve(job_id)
    assert job.status == "failed" and job.error is not None
    last = (await api.sdk.fine_tuning.jobs.list_events(job_id)).data[0]
    assert (last.level, last.message) == ("error", job.error.message)
    return job.error


@pytest.mark.parametrize(("method", "lines", "code", "parts"), FILES)
async def test_a_job_that_fails_by_its_training_file(
    api: Api, tmp_path: Path, method: str, lines: list[bytes], code: str, parts: list[str]
) -> None:
    job = await api.create(training_file=await api.upload(*lines), method={"type": method})
    error = await error_of(api, job.id, tmp_path)
    assert (error.code, error.param) == (code, "training_file")
    assert [part for part in parts if part not in error.message] == []


async def test_a_job_that_fails_by_its_validation_file(api: Api, tmp_path: Path) -> None:
    job = await api.create(validation_file=await api.upload(row(0), b'{"messages": []}'))
    error = await error_of(api, job.id, tmp_path)
    assert (error.code, error.param) == ("invalid_validation_file", "validation_file")
    assert "invalid validation file" in error.message and "Example 2" in error.message


@pytest.mark.parametrize("param", ["training_file", "validation_file"])
async def test_a_job_whose_file_is_deleted(api: Api, param: str) -> None:
    file = await api.upload(*ROWS)
    job = await api.create(**{param: file})
    await api.sdk.files.delete(file)
    error = (await api.sdk.fine_tuning.jobs.retrieve(job.id)).error
    assert error is not None
    assert (error.code, error.param) == (f"deleted_{param}", param)
    assert error.message == f"The job failed because the {param.replace('_', ' ')} was deleted"
