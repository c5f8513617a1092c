"""How the command `luthier` ends where something is wrong: a line that says it, a code of docs/cli.md, nothing lost."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import luthier
import pytest
from luthier import AsyncLuthier, Luthier
from luthier.configuration import config_path

from service.domain.check import Finding
from service.installation.context import Context
from service.operations.keys import Caller
from tests.given.command import Called, called, in_terminal
from tests.given.files_by_http import ROWS
from tests.given.scripted_api import scripted_api, sends
from tests.given.scripted_api import streams as api_streams
from tests.given.scripted_engine import ScriptedEngine, streams
from tests.given.stored_checks import do_check
from tests.given.stored_jobs import add_job, claimed, steps, tell
from tests.house_rules.tree import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("configured")]

LUTHIER = f"{sys.executable} -m luthier"
ESCAPE = "\x1b[31mred\x1b[2J\x9b"
FILE = {"object": "file", "purpose": "fine-tune-results", "bytes": 3, "created_at": 1, "expires_at": None}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which commands run."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.chdir(folder)
    return folder


async def by_shell(script: str) -> Called:
    return await called(script, program=("bash", "-c"))


async def kept(sdk: AsyncLuthier) -> int:
    """How many files, checks and jobs there are."""
    lists = [await sdk.files.list(), await sdk.fine_tuning.checks.list(), await sdk.fine_tuning.jobs.list()]
    return sum(len(one.data) for one in lists)


def said(ended: Called, code: int, *words: str) -> None:
    assert ended.code == code, ended
    assert "Traceback" not in ended.stderr and all(word in ended.stderr for word in words), ended.stderr


async def test_an_empty_key_replaces_no_stored_one(configured: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await called("login", "--url", configured, "--key", "-", stdin=f"{key}\n")).code == 0
    stored = config_path().read_text()
    for empty, stdin in (("-", ""), ("-", " \n"), ("", ""), ("  ", "")):
        said(await called("login", "--url", configured, "--key", empty, stdin=stdin), 2, "The key is empty")
    said(await called("login", "--url", "", "--key", key), 5, "must begin with http")
    said(await called("login", "--url", configured), 2, "--key")
    assert config_path().read_text() == stored
    monkeypatch.setenv("LUTHIER_API_KEY", "sk-other")
    assert "LUTHIER_API_KEY is set" in (await called("login", "--url", configured, "--key", key)).stderr
    for arguments in ({"api_key": ""}, {"url": ""}, {"api_key": "schlüssel"}, {"api_key": "a\nb"}):
        with pytest.raises(luthier.ConfigurationError):
            Luthier(**arguments)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LUTHIER_API_KEY", "schlüssel", "characters that no key has"),
        ("LUTHIER_API_KEY", "sk a", "characters that no key has"),
        ("LUTHIER_URL", "http://[::1", "is not that of a service"),
        ("LUTHIER_URL", "http://localhost:99999", "is not that of a service"),
        ("LUTHIER_URL", "http://", "is not that of a service"),
        ("LUTHIER_URL", "http://host:80/ui", "that of the dashboard; the service is at http://host:80\n"),
        ("LUTHIER_URL", "http://host/ui/jobs", "that of the dashboard; the service is at http://host\n"),
    ],
)
async def test_a_key_or_an_address_that_is_none_is_said(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    said(await called("models", "ls"), 5, words)


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (2, "wait ''"),
        (2, "jobs show .."),
        (2, "logs ."),
        (2, "open ''"),
        (2, "wait ftjob-1 --timeout nan"),
        (2, "chat luthier-tiny --temperature nan -m Hi"),
        (2, "aliases set support luthier-tiny --weight 0.5"),
        (2, "aliases set support luthier-tiny --candidate luthier-tiny --weight nan"),
        (2, "check ROWS --base luthier-tiny --timeout -1"),
        (2, "check ROWS --base luthier-tiny --rows 2 -o json"),
        (2, "check ROWS --base luthier-tiny --rows 2 -o id"),
        (2, "tune ROWS --base luthier-tiny -y -d --set learning_rate_multiplier=NaN"),
        (2, "tune ROWS --base luthier-tiny -y -d --set n_epochs=1e999"),
        (2, "tune ROWS --base luthier-tiny -y --junit missing/x.xml"),
        (2, "tune ROWS --base luthier-tiny -y --sarif ."),
        (2, "tune ROWS --base luthier-tiny -y --metrics ROWS"),
        (2, "tune ROWS --base luthier-tiny -y --validation ROWS --summary ROWS"),
        (2, "tune ROWS --base luthier-tiny -y --junit one --metrics ./one"),
        (2, "files upload <(cat ROWS)"),
        (5, "chat luthier-tiny < <(printf '\\xff\\n')"),
        (5, "jobs ls > /dev/full"),
        (5, "models ls -o json > /dev/full"),
        (5, "tune ROWS --base no-such-base -y"),
        (5, "check ROWS --base no-such-base"),
        (5, "tune ROWS --base luthier-tiny -y --set no_such_setting=1"),
        (5, "tune ROWS --base luthier-tiny -y -d --set no_such_setting=1"),
        (5, "check ROWS --base luthier-tiny --set no_such_setting=1"),
        (5, "pull luthier-tiny --to x.zip"),
        (141, "models ls | exit 0; exit ${PIPESTATUS[0]}"),
    ],
)
async def test_what_is_wrong_ends_with_a_line_and_leaves_nothing(
    code: int, arguments: str, rows: Path, here: Path, sdk: AsyncLuthier
) -> None:
    ended = await by_shell(f"{LUTHIER} {arguments.replace('ROWS', str(rows))}")
    said(ended, code)
    assert (ended.stderr.strip() == "") == (code == 141), ended.stderr
    assert await kept(sdk) == 0 and rows.read_bytes() == ROWS and list(here.iterdir()) == []


async def test_an_argument_that_cannot_be_sent_is_an_error_of_the_sdk(sdk: AsyncLuthier) -> None:
    for id in ("", ".", ".."):
        with pytest.raises(luthier.InvalidArgumentError, match="must be the id of an object"):
            await sdk.files.retrieve(id)
    for value in (float("nan"), float("inf"), object()):
        with pytest.raises(luthier.InvalidArgumentError, match="cannot be written as JSON"):
            await sdk.chat.completions.create(model="luthier-tiny", messages=[], extra_body={"temperature": value})
    assert {luthier.LuthierError, ValueError} <= set(luthier.InvalidArgumentError.__mro__)


async def test_a_base_has_no_date() -> None:
    assert "luthier-tiny" in (shown := (await called("models", "ls")).stdout) and "1970" not in shown


async def test_no_other_key_is_advised_where_none_would_help() -> None:
    refused = await called("pull", "luthier-tiny", "--to", "x.zip")
    assert "is a base" in refused.stderr and "key" not in refused.stderr
    assert "role admin" in (other := await called("keys", "ls")).stderr and "luthier login" in other.stderr


async def test_what_nobody_foresaw_is_one_line_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    nested = b"[" * 100_000 + b"]" * 100_000
    async with scripted_api(api_streams(nested, kind="application/json")) as api:
        monkeypatch.setenv("LUTHIER_URL", api.url)
        ended = await called("jobs", "show", "ftjob-1")
    said(ended, 5, "RecursionError", "Please report it")


async def test_output_that_the_encoding_cannot_hold_is_escaped(
    ctx: Context, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await claimed(ctx, caller)
    await held.record_steps(steps(1, 2), 1.0)
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    table = await by_shell(f"{LUTHIER} compare {held.job.id} {held.job.id}")
    assert table.code == 0 and "\\u2581" in table.stdout, table
    await tell(ctx, held.job.id, 1)
    found = await by_shell(f"{LUTHIER} logs {held.job.id} -o json")
    assert json.loads(found.stdout)[-1]["message"] == "1"


async def test_results_of_two_jobs_do_not_meet_and_files_are_not_replaced_unasked(
    ctx: Context, caller: Caller, sdk: AsyncLuthier, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await sdk.files.create(file=("mine.jsonl", ROWS), purpose="fine-tune")
    assert (await called("files", "download", file.id)).stdout == "mine.jsonl\n"
    (here / "mine.jsonl").write_text("edited")
    said(await called("files", "download", file.id), 5, "mine.jsonl exists", "--force")
    said(await called("files", "download", file.id, "--to", "mine.jsonl"), 5, "--force")
    assert (here / "mine.jsonl").read_text() == "edited"
    assert (await called("files", "download", file.id, "--force")).code == 0
    assert (here / "mine.jsonl").read_bytes() == ROWS
    said(await called("files", "download", file.id, "--to", "missing/x"), 5, "missing/x: No such file")
    for not_a_file in (".", "/dev/null"):
        ended = await called("files", "download", file.id, "--to", not_a_file, "--force")
        assert ended.code in (2, 5) and "Traceback" not in ended.stderr
    assert not Path("/dev/null").is_file()

    job = (await sdk.fine_tuning.jobs.retrieve((await claimed(ctx, caller)).job.id)).to_dict()
    answers = [
        sends({**job, "result_files": ["file-1"]}),
        sends({**FILE, "id": "file-1", "filename": "step_metrics.csv", "status": "processed"}),
        api_streams(b"a,b", kind="application/octet-stream"),
    ]
    async with scripted_api(*answers, *answers, *answers[:2], *answers[:2], *answers) as api:
        monkeypatch.setenv("LUTHIER_URL", api.url)
        for id in ("ftjob-A", "ftjob-B"):
            assert (await called("jobs", "download", id)).stdout == f"{id}/step_metrics.csv\n"
        (here / "ftjob-A/step_metrics.csv").write_text("edited")
        said(await called("jobs", "download", "ftjob-A"), 5, "ftjob-A/step_metrics.csv exists")
        with Luthier() as blocking, pytest.raises(FileExistsError):
            await asyncio.to_thread(blocking.download, "ftjob-A", here / "ftjob-A")
        assert (here / "ftjob-A/step_metrics.csv").read_text() == "edited"
        assert (await called("jobs", "download", "ftjob-B", "--to", "ftjob-A", "--force")).code == 0
        assert (here / "ftjob-A/step_metrics.csv").read_text() == "a,b"


async def test_a_download_to_a_folder_fetches_nothing_and_leaves_nothing(here: Path) -> None:
    def archive() -> None:
        with Luthier(api_key="k", url=api.url) as blocking:
            blocking.pull("ft:a", here)

    async with scripted_api(api_streams(b"PK", kind="application/zip")) as api:
        with pytest.raises(IsADirectoryError):
            await asyncio.to_thread(archive)
    said(await called("pull", "ft:a", "--to", "."), 2, "is a directory")
    assert sorted(path.name for path in here.parent.glob(".*")) == []


async def test_a_report_that_is_lost_costs_no_verdict(ctx: Context, sdk: AsyncLuthier, rows: Path) -> None:
    xml = rows.with_name("x.xml")
    command = ("tune", str(rows), "--base", "luthier-tiny", "-y", "-o", "id", "--junit", str(xml))
    tuning = asyncio.create_task(called(*command, "--summary", "/dev/full"))
    await do_check(ctx)
    async with asyncio.timeout(30):
        while not (jobs := (await sdk.fine_tuning.jobs.list()).data):
            assert not tuning.done(), tuning.result()
            await asyncio.sleep(0.02)
        await sdk.fine_tuning.jobs.cancel(jobs[0].id)
        ended = await tuning
    said(ended, 4, "/dev/full: No space left on device", "The report is lost")
    assert ended.stdout == f"{jobs[0].id}\n" and jobs[0].id in xml.read_text()


@pytest.mark.parametrize("at", ["Base", "Every row is checked", "Start?"])
async def test_ctrl_c_before_a_job_is_130_and_deletes_what_was_uploaded(
    at: str, ctx: Context, sdk: AsyncLuthier, rows: Path
) -> None:
    base = () if at == "Base" else ("--base", "luthier-tiny")
    async with in_terminal("tune", str(rows), *base, COLUMNS="120") as terminal:
        if at == "Start?":
            await terminal.shows("Every row is checked")
            await do_check(ctx)
        await terminal.shows(at)
        await asyncio.sleep(0.5)  # it reads: a signal just before that would be seen at the next key
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.ends() == 130, terminal.shown
    assert "Aborted" not in terminal.shown and "Traceback" not in terminal.shown
    assert ("what was uploaded is deleted" in terminal.shown) == (at != "Base")
    assert await kept(sdk) == 0


async def test_ctrl_c_in_a_check_deletes_what_was_uploaded(sdk: AsyncLuthier, rows: Path) -> None:
    async with in_terminal("check", str(rows), "--base", "luthier-tiny", COLUMNS="120") as terminal:
        async with asyncio.timeout(30):
            while not (await sdk.fine_tuning.checks.list()).data:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)  # its answer is read
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.ends() == 130, terminal.shown
    assert "what was uploaded is deleted" in terminal.shown and await kept(sdk) == 0


@pytest.mark.parametrize("place", ["client", "async_client"])
async def test_a_large_adapter_that_is_refused_is_not_kept(
    place: str, sdk: AsyncLuthier, sync_sdk: Luthier, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"luthier.{place}.LARGE_BYTES", 1)
    with pytest.raises(luthier.APIStatusError):
        if place == "client":
            await asyncio.to_thread(sync_sdk.push, rows, "no-such-base")
        else:
            await sdk.push(rows, "no-such-base")
    assert await kept(sdk) == 0


async def test_a_file_that_is_invalid_is_not_kept(ctx: Context, sdk: AsyncLuthier, rows: Path) -> None:
    tuning = asyncio.create_task(called("tune", str(rows), "--base", "luthier-tiny", "-y"))
    await do_check(ctx, Finding(2, "messages", "is missing", "Add it."))
    said(await tuning, 1, "a file is invalid", "what was uploaded is deleted")
    assert await kept(sdk) == 0


async def test_control_characters_of_others_reach_no_terminal(
    ctx: Context, caller: Caller, sdk: AsyncLuthier, engine: ScriptedEngine, here: Path
) -> None:
    name = f"a{ESCAPE}.jsonl"
    file = await sdk.files.create(file=(name, ROWS), purpose="fine-tune")
    job = await add_job(ctx, caller)
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": ESCAPE}}]})
    engine.script = streams(f"data: {chunk}\n\n".encode(), b"data: [DONE]\n\n")
    for command in (
        ("files", "ls"),
        ("files", "show", file.id),
        ("files", "show", file.id, "-o", "json"),
        ("files", "download", file.id),
        ("files", "download", file.id),
        ("chat", "luthier-tiny", "-m", "Hi"),
        ("jobs", "show", f"ftjob-{ESCAPE}"),
        ("logs", job.id),
    ):
        async with in_terminal(*command, COLUMNS="200", NO_COLOR="1") as terminal:
            await terminal.ends()
        assert not any(sequence in terminal.shown for sequence in ("\x1b[31m", "\x1b[2J", "\x9b")), terminal.shown
        assert command[0] == "logs" or "\\u001b[31mred" in terminal.shown, (command, terminal.shown)
    assert json.loads((await called("files", "show", file.id, "-o", "json")).stdout)["filename"] == name
    assert (await called("chat", "luthier-tiny", "-m", "Hi")).stdout == f"{ESCAPE}\n", "a program gets it as it is"


def test_only_the_module_of_output_prints() -> None:
    """What others print could hold control characters."""
    allowed = {"output.py": 3, "check.py": 1, "chat.py": 1}
    for path in (ROOT / "clients/python/src/luthier/cli").glob("*.py"):
        printed = path.read_text(encoding="utf-8").count("typer.echo(")
        assert printed <= allowed.get(path.name, 0), f"{path.name}: use note() or line() of output.py"
