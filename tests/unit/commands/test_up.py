"""`luthierd up`: what it says, and what it refuses before it starts anything."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from service.commands import up
from service.installation.context import Context
from service.recipes.catalogue import CatalogueError
from service.settings.settings import Settings
from tests.given.installation import installed
from tests.given.running_service import ROOT, free_ports


async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    await writer.drain()
    writer.close()


async def said(capsys: pytest.CaptureFixture[str], text: str) -> str:
    """What has been printed since the last time, once it holds `text`."""
    printed = ""
    async with asyncio.timeout(20):
        while text not in printed:
            await asyncio.sleep(0.02)
            printed += capsys.readouterr().out
    return printed


async def test_url_and_key_are_printed_as_soon_as_the_api_responds_and_what_is_missing_is_named(
    ctx: Context, base_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (engine,) = free_ports(1)
    port = int(base_url.rpartition(":")[2].partition("/")[0])
    settings = ctx.settings.model_copy(update={"port": port, "engine_urls": f"http://127.0.0.1:{engine}"})
    (settings.data_dir / up.KEY_FILE).write_text("sk-luthier-shown\n", encoding="utf-8")
    announcing = asyncio.create_task(up.announce(settings))
    welcome = await said(capsys, "Ctrl-C")
    assert f"http://127.0.0.1:{port}/v1" in welcome
    assert f"$(cat {settings.data_dir / up.KEY_FILE})" in welcome  # what is no terminal gets the file, not the key
    assert "sk-luthier-shown" not in welcome
    assert f"no response from http://127.0.0.1:{engine}." in welcome
    async with await asyncio.start_server(respond, "127.0.0.1", engine):
        await said(capsys, "Every engine responds")
        await announcing


def test_a_missing_folder_is_one_sentence_and_nothing_is_started(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    catalogue = tmp_path / "bases.toml"
    catalogue.write_text(
        '[[base]]\nid = "mine"\nsource = "./modle"\ncontext_tokens = 64\nserving = { tunings = ["lora"] }\n',
        encoding="utf-8",
    )
    port, engine = free_ports(2)
    settings = Settings(data_dir=tmp_path / "data", catalogue=catalogue, port=port, engine_port=engine)
    with pytest.raises(CatalogueError) as caught:
        up.run(settings)
    assert f"The base 'mine' has no folder {tmp_path}/modle, but model beside it" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not settings.data_dir.exists()


ENDS = """
import sys
from service.commands import cli
for command in sys.argv[1:]:
    sys.argv = ["luthierd", *command.split()]
    try:
        cli.main()
    except SystemExit as end:
        print(end)
print([name for name in ("fastapi", "uvicorn", "transformers", "torch", "boto3") if name in sys.modules])
"""


@pytest.mark.slow
async def test_the_schema_of_a_newer_version_is_one_sentence_of_every_command(tmp_path: Path) -> None:
    async with installed(Settings(data_dir=tmp_path)):
        pass
    with sqlite3.connect(tmp_path / "luthier.db") as newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    newer.close()
    port, engine = free_ports(2)
    told = {"LUTHIER_DATA_DIR": tmp_path, "LUTHIER_PORT": port, "LUTHIER_ENGINE_PORT": engine}
    environment = os.environ | {name: str(value) for name, value in told.items()} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ENDS, "up", "migrate", "serve"]
    ran = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    *said, imported = ran.stdout.splitlines()
    assert len(said) == 3, ran.stdout + ran.stderr
    assert imported == "[]", "a command that serves nothing waits for imports that it does not need"
    for line in said:
        assert line.startswith("luthierd: The database's schema is at revision 9999, which this version does not know")
    assert "Traceback" not in ran.stderr
