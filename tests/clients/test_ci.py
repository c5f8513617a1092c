"""deploy/ci: the composite action, GitLab's job and the script of curl, each run against the service as written."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from luthier import AsyncLuthier

from service.domain import event as wording
from service.installation.context import Context
from service.operations.keys import Caller
from tests.given.debian import need
from tests.given.files_by_http import ROWS
from tests.given.stored_checks import do_check
from tests.given.stored_jobs import BASES, move, steps
from tests.given.stored_models import add_model
from tests.given.work import claim_training, claim_validation

CI = Path(__file__).parents[2] / "deploy" / "ci"
MODEL = "ft:luthier-tiny:luthier::ABCDEFGH"
SECONDS = 60.0
EXPRESSION = re.compile(r"\$\{\{ ((?:inputs|steps\.tune\.outputs)\.[\w-]+) \}\}")

pytestmark = [pytest.mark.usefixtures("configured"), pytest.mark.slow]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a pipeline runs: with the file of the repository, and the command `luthier` on the path."""
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "luthier").write_text(f'#!/bin/sh\nexec {sys.executable} -m luthier "$@"\n')
    (commands / "luthier").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "training.jsonl").write_bytes(ROWS)
    return repository


def bash(script: str, folder: Path, **environment: str) -> int:
    """The exit code; GitHub runs steps with these options."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    ended = subprocess.run(
        command, cwd=folder, env=os.environ | environment, timeout=SECONDS, capture_output=True, text=True, check=False
    )
    sys.stdout.write(ended.stdout + ended.stderr)  # shown where the test fails
    return ended.returncode


def act(folder: Path, inputs: dict[str, str]) -> tuple[int, dict[str, str]]:
    """Runs the action's steps as a runner does, until one fails. Returns the exit code and the outputs."""
    action = yaml.safe_load((CI / "action.yml").read_text())
    given = {name: one.get("default", "") for name, one in action["inputs"].items()} | inputs
    assert all(inputs.get(name) for name, one in action["inputs"].items() if one.get("required"))
    written, outputs = folder / "output", {}
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        if "if" in step and not given[re.fullmatch(r"inputs\.([\w-]+) != ''", step["if"])[1]]:  # type: ignore[index]
            continue
        known = {f"inputs.{name}": value for name, value in given.items()}
        known |= {f"steps.tune.outputs.{name}": value for name, value in outputs.items()}
        variables = {name: known.get(EXPRESSION.fullmatch(value)[1], "") for name, value in step["env"].items()}  # type: ignore[index]
        assert "${{" not in step["run"], "an expression in a script would run what an input says"
        written.write_text("")
        files = {"GITHUB_OUTPUT": str(written), "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
        code = bash(step["run"], folder, **variables, **files)
        outputs |= dict(line.split("=", 1) for line in written.read_text().splitlines())
        if code:
            return code, outputs
    return 0, outputs


async def while_a_job_succeeds(
    ctx: Context, caller: Caller, sdk: AsyncLuthier, run: Callable[[], Any], *, checks: bool = True
) -> Any:
    """What `run` returns, which creates a job and waits for it; the job is brought to its end meanwhile.

    `checks`: it asks for a check before, which is done as well.
    """
    running = asyncio.create_task(asyncio.to_thread(run))
    if checks:
        await do_check(ctx)
    async with asyncio.timeout(SECONDS):
        while not (jobs := (await sdk.fine_tuning.jobs.list()).data):
            assert not running.done(), running.result()
            await asyncio.sleep(0.02)
        if not checks:
            held = await claim_validation(ctx, "one", BASES)
            assert held is not None
            await held.validated(hyperparameters=dict(held.job.hyperparameters), total_steps=2)
        training = await claim_training(ctx, "one", BASES)
        assert training is not None
        await training.record_steps(steps(1, 2), 1.0)
        await training.warn(wording.succeeded())
        await add_model(ctx, caller, jobs[0].id, MODEL, kind="final")
        await move(ctx, jobs[0].id, "running", status="succeeded", finished_at=2, fine_tuned_model=MODEL)
        return await running


def inputs(url: str, key: str, **more: str) -> dict[str, str]:
    needed = {"url": url, "api-key": key, "file": "training.jsonl", "base": "luthier-tiny", "package": ""}
    return needed | more


async def test_the_action_tunes_reports_and_promotes(
    ctx: Context, caller: Caller, sdk: AsyncLuthier, folder: Path, configured: str, key: str
) -> None:
    await sdk.model_aliases.create(name="support", model="luthier-tiny")
    given = inputs(
        configured, key, promote="support", gates="train_loss<2\n\ntrain_loss > 0.1\n", arguments="--seed 7 --suffix ci"
    )
    code, outputs = await while_a_job_succeeds(ctx, caller, sdk, lambda: act(folder, given))
    (job,) = (await sdk.fine_tuning.jobs.list()).data
    assert (code, outputs) == (0, {"job": job.id, "model": MODEL})
    assert job.seed == 7
    assert (await sdk.model_aliases.retrieve("support")).model == MODEL
    found = json.loads((folder / "luthier-metrics.json").read_text())
    assert (found["job"], found["status"], found["model"]) == (job.id, "succeeded", MODEL)
    assert found["gates"] == {"train_loss<2": True, "train_loss>0.1": True}
    assert found["last"]["train_loss"] == 1.0 and [step for step, _ in found["steps"]["train_loss"]] == [1, 2]
    assert "Tuning of `luthier-tiny`: succeeded" in (folder / "summary.md").read_text()
    assert {path.name for path in folder.glob("luthier*")} == {
        "luthier.xml", "luthier.sarif", "luthier-metrics.json", "luthier-job.json",
    }  # fmt: skip


async def test_a_gate_that_is_not_met_fails_the_action_and_promotes_nothing(
    ctx: Context, caller: Caller, sdk: AsyncLuthier, folder: Path, configured: str, key: str
) -> None:
    await sdk.model_aliases.create(name="support", model="luthier-tiny")
    given = inputs(configured, key, promote="support", gates="train_loss<0.5")
    code, outputs = await while_a_job_succeeds(ctx, caller, sdk, lambda: act(folder, given))
    assert (code, outputs["model"]) == (3, MODEL)
    assert (await sdk.model_aliases.retrieve("support")).model == "luthier-tiny"
    assert "train_loss is 1" in (folder / "luthier.xml").read_text()


async def test_what_an_input_says_is_never_run(sdk: AsyncLuthier, folder: Path, configured: str, key: str) -> None:
    hostile = '"; touch owned; $(touch owned) `touch owned`'
    for name in ("file", "base", "validation", "gates", "arguments", "api-key"):
        code, _ = await asyncio.to_thread(act, folder, inputs(configured, key, **{name: hostile}))
        assert code != 0
    assert not list(folder.rglob("owned"))
    assert (await sdk.fine_tuning.jobs.list()).data == []


async def test_gitlabs_job_leaves_its_reports(ctx: Context, caller: Caller, sdk: AsyncLuthier, folder: Path) -> None:
    job = yaml.safe_load((CI / "gitlab.yml").read_text())["tune"]
    variables = job["variables"] | {"ARGUMENTS": "--seed 7 --gate train_loss<2"}
    script = "\n".join(job["script"])
    code = await while_a_job_succeeds(ctx, caller, sdk, lambda: bash(script, folder, **variables))
    assert code == 0
    kept = [*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]]
    assert all((folder / path).is_file() for path in kept)


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1)])
async def test_curl_alone_is_enough(
    ctx: Context, caller: Caller, sdk: AsyncLuthier, folder: Path, configured: str, status: str, code: int
) -> None:
    need("jq", "jq", remedy="install jq")
    url = configured.removesuffix("/v1")
    script = f"{CI / 'tune.sh'} training.jsonl luthier-tiny > job.json"

    def run() -> int:
        return bash(script, folder, POLL_SECONDS="0.05", LUTHIER_URL=url)

    if status == "succeeded":
        assert await while_a_job_succeeds(ctx, caller, sdk, run, checks=False) == code
        assert json.loads((folder / "job.json").read_text())["fine_tuned_model"] == MODEL
        return
    running = asyncio.create_task(asyncio.to_thread(run))
    async with asyncio.timeout(SECONDS):
        while not (jobs := (await sdk.fine_tuning.jobs.list()).data):
            await asyncio.sleep(0.02)
        await sdk.fine_tuning.jobs.cancel(jobs[0].id)
        assert await running == code
    assert json.loads((folder / "job.json").read_text())["status"] == "cancelled"


async def test_curl_shows_what_the_service_refuses(folder: Path, configured: str) -> None:
    need("jq", "jq", remedy="install jq")
    url = configured.removesuffix("/v1")
    script = f"{CI / 'tune.sh'} training.jsonl no-such-base"
    assert await asyncio.to_thread(bash, f"{script} > out 2> error", folder, LUTHIER_URL=url) != 0
    assert "no-such-base" in (folder / "out").read_text() + (folder / "error").read_text()


def test_the_script_of_curl_is_short() -> None:
    lines = (CI / "tune.sh").read_text().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) <= 18
