"""`luthier check` against the service: counts, bad lines, masks, and that nothing is started."""

import asyncio
import json
from pathlib import Path

import pytest
from luthier import AsyncLuthier

from service.installation.context import Context
from service.operations.keys import Caller
from service.settings.settings import Settings
from tests.given.checks import claimed, work_through
from tests.given.command import Called, called
from tests.given.journey import rows as good_rows
from tests.given.running_service import write_catalogue
from tests.given.scripted_engine import ScriptedEngine
from tests.given.stored_jobs import add_measured
from tests.given.tiny_models import make_tiny_base

pytestmark = pytest.mark.usefixtures("configured")


@pytest.fixture
def settings(tmp_path: Path, engine: ScriptedEngine) -> Settings:
    catalogue = write_catalogue(tmp_path / "bases.toml", make_tiny_base(tmp_path / "base"))
    return Settings(data_dir=tmp_path / "data", engine_urls=engine.url, catalogue=catalogue)


async def checked(ctx: Context, *arguments: str) -> Called:
    """The command, whose check a worker does meanwhile."""
    running = asyncio.create_task(called("check", *arguments, "--base", "tiny"))
    async with asyncio.timeout(60):
        while (held := await claimed(ctx)) is None:
            assert not running.done(), running.result()
            await asyncio.sleep(0.02)
        await work_through(ctx, held)
        return await running


async def test_a_good_file_is_counted_and_shown_with_what_is_trained(
    ctx: Context, caller: Caller, sdk: AsyncLuthier, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(good_rows(24))
    for seconds in (20, 22, 21):
        await add_measured(ctx, caller, "tiny", seconds)
    found = await checked(ctx, str(file), "--rows", "2", "--set", "n_epochs=2", "--set", "batch_size=8")
    assert found.code == 0, found.stderr
    lines = [line.split() for line in found.stdout.splitlines()]
    assert ["rows", "24"] in lines and ["steps", "6"] in lines
    assert ["measured", "jobs", "3"] in lines and "9 of 10 such jobs: " in found.stdout
    assert "line 1" in found.stdout and "line 2" in found.stdout and "line 3" not in found.stdout
    assert "[" in found.stdout and "tokens are trained" in found.stdout and "\x1b" not in found.stdout
    assert f"luthier tune {file} --base tiny" in found.stderr
    assert len((await sdk.fine_tuning.jobs.list()).data) == 3  # those that were measured: a check makes no job


async def test_bad_lines_are_listed_and_the_exit_code_says_so(ctx: Context, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(good_rows(24) + b'\n{"messages": []}\nno json\n')
    found = await checked(ctx, str(file))
    assert found.code == 1, found.stdout
    shown = [line.split()[0] for line in found.stdout.splitlines() if line.strip()[:2] in ("25", "26")]
    assert shown == ["25", "26"], found.stdout
    again = await checked(ctx, str(file), "-o", "json")
    result = json.loads(again.stdout)["result"]
    assert (again.code, result["valid"]) == (1, False)
    assert [one["line"] for one in result["training_file"]["problems"]] == [25, 26]
    assert (result["duration"], result["duration_unknown"]) == (None, None)


async def test_a_check_that_nobody_does_is_124_and_goes_on(ctx: Context, sdk: AsyncLuthier, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(good_rows(24))
    late = await called("check", str(file), "--base", "tiny", "--timeout", "0")
    (waiting,) = (await sdk.fine_tuning.checks.list()).data
    assert late.code == 124 and f"{waiting.id} is still queued" in late.stderr
