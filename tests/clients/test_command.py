"""The command `luthier` against the service: data on stdout, the rest on stderr, exit codes that are verdicts."""

import asyncio
import json
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from luthier import AsyncLuthier
from luthier.cli.curve import sparkline
from luthier.cli.main import app
from luthier.cli.output import prose
from luthier.configuration import config_path

from service.domain.check import Finding
from service.installation.context import Context
from service.operations import keys
from service.operations.keys import Caller
from tests.given.command import called, in_terminal
from tests.given.debian import need
from tests.given.files_by_http import ROWS
from tests.given.scripted_api import scripted_api, sends
from tests.given.scripted_engine import ScriptedEngine, answers, streams
from tests.given.stored_checks import do_check
from tests.given.stored_jobs import add_job, claimed, move, steps, tell

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("configured")]

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"Hi "}}]}\n\n'
CHAT = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"luthier-tiny","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Good day"},"finish_reason":"stop"}]}'
)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    return path


async def ended(ctx: Context, caller: Caller, status: str) -> str:
    job = await add_job(ctx, caller)
    await move(ctx, job.id, "validating_files", status=status, finished_at=2)
    return job.id


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 4)])
async def test_the_exit_code_is_the_verdict(ctx: Context, caller: Caller, status: str, code: int) -> None:
    id = await ended(ctx, caller, status)
    waited = await called("wait", id)
    assert (waited.code, waited.stdout, waited.stderr) == (code, f"{id}\n", "")
    watched = await called("watch", id, "-o", "json")
    assert (watched.code, json.loads(watched.stdout)["status"]) == (code, status)


async def test_waiting_too_long_is_124_and_the_job_continues(ctx: Context, caller: Caller) -> None:
    job = await add_job(ctx, caller)
    waited = await called("wait", job.id, "--timeout", "0.1")
    assert (waited.code, waited.stdout) == (124, "")
    assert f"It continues: luthier wait {job.id}" in waited.stderr


async def test_tune_uploads_shows_and_follows(ctx: Context, sdk: AsyncLuthier, rows: Path) -> None:
    settings = ("--set", "n_epochs=2", "--set", "lora.r=64", "--serve-as", "lora", "--serve-rank", "4")
    tuning = asyncio.create_task(called("tune", str(rows), "--base", "luthier-tiny", "-y", "-o", "id", *settings))
    check = await do_check(ctx)
    async with asyncio.timeout(20):
        while not (jobs := (await sdk.fine_tuning.jobs.list()).data):
            assert not tuning.done(), tuning.result()
            await asyncio.sleep(0.02)
        assert jobs[0].tuning["lora"]["r"] == 64
        assert (jobs[0].tuning["serve_as"], jobs[0].tuning["serve_rank"]) == ("lora", 4)
        assert jobs[0].hyperparameters.n_epochs == 2
        assert jobs[0].status == "queued", "what was checked is not validated again"
        events = (await sdk.fine_tuning.jobs.events.list(jobs[0].id)).data
        assert any(check in event.message for event in events)
        await tell(ctx, jobs[0].id, 1)
        await sdk.fine_tuning.jobs.cancel(jobs[0].id)
        done = await tuning
    assert (done.code, done.stdout) == (4, f"{jobs[0].id}\n")
    for shown in (
        "500 rows",
        "n_epochs=2",
        "lora, r=64, serve_as=lora, serve_rank=4",
        f"luthier watch {jobs[0].id}",
        "warn: 1",
    ):
        assert shown in done.stderr
    for found in ("6.0 MB", "worker-1", "34.4 GB", "fits", "unknown: it has not loaded the base"):
        assert found in done.stderr, "of the memory"
    for found in ("learning rate", "0.001", "60 s (9 of 10 such jobs: 30 s to 2 min)", "2 rows are equal."):
        assert found in done.stderr, "of the check"


async def test_a_job_that_nobody_watches_starts_without_a_check(sdk: AsyncLuthier, rows: Path) -> None:
    started = await called("tune", str(rows), "--base", "luthier-tiny", "-y", "-d", "-o", "id")
    (job,) = (await sdk.fine_tuning.jobs.list()).data
    assert (started.code, started.stdout, job.status) == (0, f"{job.id}\n", "validating_files")
    assert (await sdk.fine_tuning.checks.list()).data == []


async def test_tune_asks_where_it_can_and_never_starts_unasked(sdk: AsyncLuthier, rows: Path) -> None:
    unasked = await called("tune", str(rows), "--base", "luthier-tiny")
    assert unasked.code == 2 and "-y" in unasked.stderr
    nameless = await called("tune", str(rows), "-y")
    assert nameless.code == 2 and "--base" in nameless.stderr and "luthier-tiny" in nameless.stderr
    for wrong in ("n_epochs", "=3"):
        assert (await called("tune", str(rows), "--set", wrong)).code == 2
    formless = await called("tune", str(rows), "--base", "luthier-tiny", "-y", "--serve-rank", "16")
    assert formless.code == 2 and "--tuning" in formless.stderr
    assert (await sdk.files.list()).data == [] and (await sdk.fine_tuning.jobs.list()).data == []


async def test_lists_as_json_ids_and_tables(ctx: Context, caller: Caller, sdk: AsyncLuthier) -> None:
    file = await sdk.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune")
    job = await add_job(ctx, caller)
    for noun, id in (("jobs", job.id), ("files", file.id), ("models", "luthier-tiny")):
        as_json = await called(noun, "ls", "-o", "json")
        assert id in [one["id"] for one in json.loads(as_json.stdout)] and as_json.stderr == ""
        assert id in (await called(noun, "ls", "-o", "id")).stdout.splitlines()
        assert id in (await called(noun, "ls")).stdout
        assert json.loads((await called(noun, "show", id, "-o", "json")).stdout)["id"] == id
        assert id in (await called(noun, "show", id)).stdout
    assert (await called("files", "ls", "-n", "1", "-o", "id")).stdout.count("\n") == 1


async def test_json_is_read_by_jq_with_its_errors_and_progress_elsewhere(
    ctx: Context, caller: Caller, sdk: AsyncLuthier, rows: Path
) -> None:
    need("jq", "jq", remedy="install jq")
    job = await add_job(ctx, caller)
    for command, query, found in (
        (("jobs", "ls"), ".[0].id", job.id),
        (("jobs", "show", job.id), ".progress.queue_position", "null"),
        (("jobs", "cancel", job.id), ".status", "cancelled"),
        (("wait", job.id), ".status", "cancelled"),
        (("logs", job.id), ".[-1].type", "message"),
        (("files", "upload", str(rows)), ".bytes", str(len(ROWS))),
        (("models", "ls"), 'map(.id) | join(",")', "luthier-tiny"),
        (("aliases", "set", "support", "luthier-tiny"), ".model", "luthier-tiny"),
        (("promote", "support", "luthier-tiny"), ".id", "support"),
        (("aliases", "show", "support"), ".history[0].api_key.name", "created at the first start"),
        (("aliases", "rm", "support"), ".deleted", "true"),
        (("files", "show", "file-none"), ".", ""),
    ):
        shown = await called(*command, "-o", "json")
        jq = subprocess.run(["jq", "-r", query], input=shown.stdout, capture_output=True, text=True, check=True)
        assert jq.stdout.strip() == found, command


async def test_a_page_is_opened_where_there_is_a_terminal_and_printed_everywhere(
    configured: str, tmp_path: Path
) -> None:
    url = configured.removesuffix("/v1")
    for what, path in (
        ("ftjob-1", "jobs/ftjob-1"),
        ("file-1", "files/file-1"),
        ("ftcheck-1", "checks/ftcheck-1"),
        ("ft:tiny:me::1", "playground?tuned=ft%3Atiny%3Ame%3A%3A1"),
        ("system", "system"),
    ):
        assert (await called("open", what)).stdout == f"{url}/ui/{path}\n"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    async with in_terminal("open", BROWSER=f"{browser} %s") as terminal:
        assert await terminal.ends() == 0
    assert (tmp_path / "opened").read_text() == f"{url}/ui/jobs\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_shells_complete_commands(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_LUTHIER_COMPLETE", f"complete_{shell}")
    for name, value in (("COMP_WORDS", "luthier ro"), ("COMP_CWORD", "1"), ("_TYPER_COMPLETE_ARGS", "luthier ro")):
        monkeypatch.setenv(name, value)
    if shell == "fish":
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    assert "rollback" in (await called()).stdout


async def test_files_go_and_come_and_are_removed(rows: Path, tmp_path: Path) -> None:
    id = (await called("files", "upload", str(rows))).stdout.strip()
    target = tmp_path / "back.jsonl"
    assert (await called("files", "download", id, "--to", str(target))).stdout == f"{target}\n"
    assert target.read_bytes() == ROWS
    assert (await called("files", "rm", id)).stdout == f"{id}\n"
    gone = await called("files", "show", id)
    assert gone.code == 5 and "luthier files ls" in gone.stderr and gone.stdout == ""


async def test_wrong_lines_are_shown_as_soon_as_a_file_is_uploaded(sdk: AsyncLuthier, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_bytes(ROWS + b"[]\n")
    shown = "luthier: wrong.jsonl is uploaded, and no job can train on it. Line 501: is not an object\n"
    uploaded = await called("files", "upload", str(wrong))
    assert (uploaded.code, uploaded.stderr) == (0, shown)
    assert (await sdk.files.retrieve(uploaded.stdout.strip())).status_details == "Line 501: is not an object"
    started = await called("tune", str(wrong), "--base", "luthier-tiny", "-y", "-d", "-o", "id")
    assert started.code == 0 and shown in started.stderr


async def test_what_a_check_refuses_is_not_said_of_a_job_that_was(ctx: Context, rows: Path) -> None:
    checking = asyncio.create_task(called("check", str(rows), "--base", "luthier-tiny"))
    await do_check(ctx, Finding(2, "messages", "is missing", "Add it."))
    refused = await checking
    assert refused.code == 1
    assert "training file: it is invalid. A job on it would end with this error: It is invalid." in refused.stderr


async def test_keys_are_made_shown_and_revoked_by_admins(
    ctx: Context, configured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = await called("keys", "ls")
    assert refused.code == 5 and "--admin" in refused.stderr
    monkeypatch.setenv("LUTHIER_API_KEY", await keys.create_key(ctx, "default", "admin"))
    made = await called("keys", "create", "laptop", "--project", "team-a", "-o", "json")
    key = json.loads(made.stdout)
    assert (key["project"], key["role"]) == ("team-a", "project") and key["value"] not in made.stderr
    assert key["id"] in (await called("keys", "ls", "-o", "id")).stdout.splitlines()
    shown = (await called("keys", "show", key["id"])).stdout
    assert "team-a" in shown and key["value"] not in shown
    assert (await called("keys", "rm", key["id"])).stdout == f"{key['id']}\n"
    gone = await called("keys", "rm", key["id"])
    assert gone.code == 5 and "luthier keys ls" in gone.stderr
    monkeypatch.setenv("LUTHIER_API_KEY", key["value"])
    assert (await called("models", "ls")).code == 5


async def test_jobs_are_paused_resumed_and_cancelled(ctx: Context, caller: Caller) -> None:
    job = await add_job(ctx, caller, "running")
    assert (await called("jobs", "pause", job.id)).code == 0
    await move(ctx, job.id, "running", status="paused")
    assert json.loads((await called("jobs", "resume", job.id, "-o", "json")).stdout)["status"] == "queued"
    assert json.loads((await called("jobs", "cancel", job.id, "-o", "json")).stdout)["status"] == "cancelled"
    assert "no result files" in (await called("jobs", "download", job.id)).stderr


async def test_logs_are_oldest_first_and_steps_are_asked_for(ctx: Context, caller: Caller) -> None:
    held = await claimed(ctx, caller)
    await tell(ctx, held.job.id, 1, 2)
    await held.record_steps(steps(1, 2), 1.0)
    lines = (await called("logs", held.job.id)).stdout.splitlines()
    assert [line[-7:] for line in lines][-2:] == ["warn: 1", "warn: 2"]
    found = json.loads((await called("logs", held.job.id, "--metrics", "-o", "json")).stdout)
    assert [event["data"]["step"] for event in found if event["type"] == "metrics"] == [1, 2]


async def test_two_jobs_are_compared(ctx: Context, caller: Caller) -> None:
    first, second = await claimed(ctx, caller), await claimed(ctx, caller)
    await first.record_steps(steps(1, 2), 1.0)
    shown = await called("compare", first.job.id, second.job.id, "-o", "json")
    found = json.loads(shown.stdout)
    assert found["losses"]["train_loss"] == [1.0, None] and list(found["settings"]) == ["training_file"]
    table = (await called("compare", first.job.id, second.job.id)).stdout
    assert "training_file" in table and "1.0000" in table


async def test_chat_streams_and_compares(engine: ScriptedEngine) -> None:
    engine.script = streams(CHUNK, CHUNK, b"data: [DONE]\n\n")
    talk = await called("chat", "luthier-tiny", "--system", "Be brief.", stdin="One?\n\nTwo?\n")
    assert (talk.code, talk.stdout) == (0, "Hi Hi \nHi Hi \n")
    assert [one["content"] for one in engine.seen[1]["messages"]] == ["Be brief.", "One?", "Hi Hi ", "Two?"]
    engine.script = answers(CHAT)
    sides = await called("chat", "luthier-tiny", "--compare", "luthier-tiny", "-m", "Hello")
    assert "Good day" in sides.stdout and len(engine.seen) >= 3


async def test_login_tries_the_key_and_stores_it_for_its_owner_alone(
    configured: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LUTHIER_URL", "LUTHIER_API_KEY"):
        monkeypatch.delenv(name)
    lost = await called("models", "ls")
    assert lost.code == 5 and "luthier login" in lost.stderr
    wrong = await called("login", "--url", configured, "--key", "sk-wrong")
    assert wrong.code == 5 and not config_path().exists() and "luthier login" in wrong.stderr
    done = await called("login", "--url", configured, "--key", "-", stdin=f"{key}\n")
    assert done.code == 0 and key not in done.stdout + done.stderr
    assert stat.S_IMODE(config_path().stat().st_mode) == 0o600
    assert (await called("models", "ls", "-o", "id")).stdout == "luthier-tiny\n"


async def test_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = await called("tune", str(tmp_path / "none.jsonl"))
    assert missing.code == 2 and "none.jsonl" in missing.stderr
    assert "luthier jobs ls" in (await called("jobs", "show", "ftjob-nothing")).stderr
    async with scripted_api(sends(["no", "object"])) as api:
        monkeypatch.setenv("LUTHIER_URL", api.url)
        odd = await called("models", "ls")
        assert odd.code == 5 and "luthier login" in odd.stderr
    monkeypatch.setenv("LUTHIER_URL", "http://127.0.0.1:1")
    down = await called("models", "ls")
    assert (down.code, down.stdout) == (5, "") and "Is the service running" in down.stderr


def test_every_command_has_an_example() -> None:
    def walk(command: object, path: str) -> None:
        below = vars(command).get("commands")
        for name, one in (below or {}).items():
            walk(one, f"{path} {name}")
        if below is None:
            assert f"Example: {path}" in (vars(command)["help"] or ""), path

    walk(typer.main.get_command(app), "luthier")


async def test_help_imports_nothing_that_is_slow() -> None:
    code = "import sys; sys.argv = ['luthier', '--help']\nfrom luthier.cli.main import main\ntry: main()\nfinally: "
    code += "print([m for m in ('httpx', 'rich', 'pydantic', 'asyncio', 'luthier.client') if m in sys.modules])"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), stdout=asyncio.subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)}
    )
    stdout, _ = await process.communicate()
    assert stdout.decode().endswith("\n[]\n"), stdout


async def test_a_terminal_shows_a_bar_and_ctrl_c_leaves_the_job(
    ctx: Context, caller: Caller, sdk: AsyncLuthier
) -> None:
    held = await claimed(ctx, caller)
    async with in_terminal("watch", held.job.id, COLUMNS="120", NO_COLOR="1") as terminal:
        await tell(ctx, held.job.id, 7)
        await terminal.shows("warn: 7")
        await held.record_steps(steps(1, 2, 3), 1.0)
        shown = await terminal.shows("3/9")
        assert "loss 1.000" in shown and sparkline([1, 1, 1]) in shown
        assert "\x1b[3" not in shown, "no colour"
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.ends() == 130
    assert f"luthier watch {held.job.id}" in terminal.shown
    assert (await sdk.fine_tuning.jobs.retrieve(held.job.id)).status == "running"


async def test_a_terminal_is_asked_before_anything_starts(ctx: Context, sdk: AsyncLuthier, rows: Path) -> None:
    async with in_terminal("tune", str(rows), COLUMNS="120") as terminal:
        await terminal.shows("Base [luthier-tiny]")
        terminal.types("\n")
        await do_check(ctx)
        assert "30 s to 2 min" in await terminal.shows("Start? [Y/n]")
        terminal.types("n\n")
        assert await terminal.ends() == 0
    assert "Nothing was started" in terminal.shown
    assert (await sdk.files.list()).data == [] and (await sdk.fine_tuning.checks.list()).data == []


def test_sentences_are_broken_between_words_in_a_terminal_only(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "of [base] luthier-tiny two of the three jobs that an estimate needs"
    prose(text)
    assert capfd.readouterr().err == f"{text}\n", "a pipe gets a line"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "24")
    prose(text)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= 24 and " ".join(map(str.strip, lines)) == text


def test_a_sparkline_is_as_high_as_its_values() -> None:
    assert sparkline([]) == "" and sparkline([2.0]) == "▁"
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([float(n) for n in range(100)], 4) == "▁▃▆█"
