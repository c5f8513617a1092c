"""`luthierd doctor`: each part that is broken is named, with what to do; a whole installation gets no complaint."""

import asyncio
import time
from pathlib import Path

import pytest

from service.commands.doctor import Diagnosis, examine
from service.domain.work import WorkerState
from service.installation.context import Context
from service.operations.keys import Caller
from service.settings.settings import Settings
from service.work import claims
from tests.given.stored_jobs import BASES, add_job, expire, move, state
from tests.given.work import claim_training


def of(findings: list[Diagnosis], part: str) -> list[Diagnosis]:
    return [finding for finding in findings if finding.part == part]


def problems(findings: list[Diagnosis]) -> list[str]:
    return [f"{finding.part}: {finding.message}" for finding in findings if finding.state == "problem"]


async def test_every_part_is_looked_at_whatever_the_others_say(ctx: Context, key: str) -> None:
    findings = await examine(ctx.settings)
    assert list(dict.fromkeys(finding.part for finding in findings)) == [
        "disk", "catalogue", "database", "storage", "bell", "engines", "workers",
    ]  # fmt: skip
    assert problems(findings) == [
        "engines: http://127.0.0.1:1 does not respond: "
        "start `luthier-worker engine` or `luthier-worker vllm` there, with our LUTHIER_ENGINE_API_KEY"
    ]


async def test_an_old_schema_names_the_command(tmp_path: Path) -> None:
    (tmp_path / "luthier.db").touch()
    (database,) = of(await examine(Settings(data_dir=tmp_path)), "database")
    assert database.state == "problem"
    assert "luthierd migrate" in database.message


async def test_an_installation_without_a_key_is_warned(ctx: Context) -> None:
    assert Diagnosis("database", "warning", "there is no API key yet: `luthierd keys create`") in await examine(
        ctx.settings
    )


async def test_a_database_that_is_away_is_named_without_its_password(tmp_path: Path) -> None:
    url = "postgresql://someone:a-secret@127.0.0.1:1/luthier"
    (database,) = of(await examine(Settings(data_dir=tmp_path, database_url=url)), "database")
    assert database.state == "problem"
    assert "LUTHIER_DATABASE_URL" in database.message
    assert "a-secret" not in str(database)


async def test_redis_that_is_away_is_named(ctx: Context) -> None:
    settings = ctx.settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"})
    (bell,) = of(await examine(settings), "bell")
    assert bell.state == "problem"
    assert "LUTHIER_REDIS_URL" in bell.message


async def test_storage_that_cannot_be_written_is_named(ctx: Context) -> None:
    (ctx.settings.data_dir / "a-file").write_text("", encoding="utf-8")
    settings = ctx.settings.model_copy(
        update={"storage_url": f"file://{ctx.settings.data_dir.absolute()}/a-file/below"}
    )
    (storage,) = of(await examine(settings), "storage")
    assert storage.state == "problem"


async def test_a_base_whose_folder_is_gone_is_named(ctx: Context, tmp_path: Path) -> None:
    catalogue = tmp_path / "bases.toml"
    catalogue.write_text(
        '[[base]]\nid = "gone"\nsource = "/nowhere/at/all"\ncontext_tokens = 64\n'
        'learning_rate = { lora = 1e-3 }\nserving = { tunings = ["lora"] }\n',
        encoding="utf-8",
    )
    (finding,) = of(await examine(ctx.settings.model_copy(update={"catalogue": catalogue})), "catalogue")
    assert finding.state == "problem"
    assert "/nowhere/at/all" in finding.message


async def test_a_catalogue_that_cannot_be_read_is_the_only_finding(ctx: Context, tmp_path: Path) -> None:
    (finding,) = await examine(ctx.settings.model_copy(update={"catalogue": tmp_path / "none.toml"}))
    assert (finding.part, finding.state) == ("settings", "problem")


@pytest.mark.parametrize("served", [["luthier-tiny"], ["another"]])
async def test_an_engine_must_serve_the_base_that_it_is_asked_for(ctx: Context, served: list[str]) -> None:
    listed = {"object": "list", "data": [{"id": name} for name in served]}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = str(listed).replace("'", '"').encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        (engine,) = of(await examine(ctx.settings.model_copy(update={"engine_urls": url})), "engines")
    assert engine.state == ("ok" if served == ["luthier-tiny"] else "problem")


@pytest.mark.parametrize("folder", ["", "missing/folder"])
async def test_a_folder_without_an_installation_is_said_and_stays_as_it_is(tmp_path: Path, folder: str) -> None:
    settings = Settings(data_dir=tmp_path / "data" / folder, engine_urls="http://127.0.0.1:1")
    (tmp_path / "data").mkdir()
    for probe in (False, True):
        findings = await examine(settings, probe=probe)
        assert "holds no installation" in of(findings, "disk")[0].message
        assert of(findings, "catalogue") and not of(findings, "storage")
        assert [path.name for path in tmp_path.rglob("*")] == ["data"]


async def test_nothing_is_written_unless_it_is_asked_for(ctx: Context, key: str) -> None:
    before = sorted(path for path in ctx.settings.data_dir.rglob("*") if "luthier.db-" not in path.name)
    (storage,) = of(await examine(ctx.settings), "storage")[:1]
    assert (storage.state, "--probe" in storage.message) == ("ok", True)
    assert sorted(path for path in ctx.settings.data_dir.rglob("*") if "luthier.db-" not in path.name) == before


async def test_the_probe_leaves_nothing_behind(ctx: Context) -> None:
    (storage,) = of(await examine(ctx.settings, probe=True), "storage")[:1]
    assert storage.message.endswith("stores, reads and deletes")
    assert [stored async for stored in ctx.storage.list("doctor/")] == []


async def test_a_worker_that_cannot_load_its_base_is_named(ctx: Context, key: str) -> None:
    states = {"luthier-tiny": "its tokenizer cannot be loaded (OSError)", "other": "loading", "third": ""}
    await claims.renew(ctx, WorkerState("worker_1", "gpu-7", states), [])
    found = [finding for finding in await examine(ctx.settings) if finding.part == "workers"]
    assert [finding.state for finding in found] == ["problem", "warning", "ok"]
    assert "worker_1 on gpu-7 cannot load luthier-tiny: its tokenizer" in found[0].message
    assert "loading other" in found[1].message


async def test_jobs_that_wait_while_no_worker_holds_any_are_a_problem(ctx: Context, caller: Caller, key: str) -> None:
    async def found() -> tuple[str, str]:
        finding = of(await examine(ctx.settings), "workers")[-1]
        return finding.state, finding.message

    assert await found() == ("ok", "0 jobs are held by workers, 0 wait")
    new, old = await add_job(ctx, caller, "queued"), await add_job(ctx, caller, "queued")  # a second after 1970 began
    assert await found() == ("problem", "2 jobs wait and no worker holds any: start `luthier-worker train`")
    held = await claim_training(ctx, "one", BASES)
    assert held is not None
    assert await found() == ("ok", "1 jobs are held by workers, 1 wait")
    await expire(ctx, held.job.id)  # its worker is lost
    assert (await found())[0] == "problem"
    for id in (new.id, old.id):
        await move(ctx, id, (await state(ctx, id)).status, created_at=int(time.time()))
    assert await found() == ("ok", "0 jobs are held by workers, 2 wait")  # for a moment, which they may
    await move(ctx, old.id, "queued", started_at=1)
    assert (await found())[0] == "problem"  # a resumed job: when it began to wait is not known
