"""`luthierd up`: what it says, and what it refuses before it starts anything."""

import asyncio
from pathlib import Path

import pytest

from service.commands import up
from service.installation.context import Context
from service.recipes.catalogue import CatalogueError
from service.settings.settings import Settings
from tests.given.running_service import free_ports


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
