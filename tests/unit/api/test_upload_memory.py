"""Big files through a real server process: its memory must not grow with them, in either direction."""

import asyncio
import hashlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from os import environ
from pathlib import Path

import httpx
import pytest

from service.installation.context import Context
from service.settings.settings import Settings
from tests.conformance.processes import free_port
from tests.given.forms import END, HEADERS, field, file_part

MIB = 1024 * 1024
SIZE_MIB = 256
GROWTH_LIMIT_BYTES = 48 * MIB
BLOCK = bytes(range(256)) * 256  # 64 KiB


@pytest.fixture
def database_url() -> str:
    """The embedded database alone: it is the API's memory that is measured."""
    return ""


@contextmanager
def served(settings: Settings) -> Iterator[tuple[str, int]]:
    """`luthierd serve` on an installation that is ready for it: its URL and process id."""
    port = free_port()
    environment = {**environ, "LUTHIER_DATA_DIR": str(settings.data_dir), "LUTHIER_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "service", "serve"], env=environment)
    try:
        _wait(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/v1", process.pid
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
async def test_a_big_file_moves_through_in_bounded_memory(ctx: Context, key: str, settings: Settings) -> None:
    with served(settings) as (url, pid):
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=300) as client:
            await _round_trip(client, url, 1)
            before = _peak_bytes(pid)
            await _round_trip(client, url, SIZE_MIB)
            growth = _peak_bytes(pid) - before
            sys.stdout.write(f"\n{SIZE_MIB} MiB: the server grew by {growth / MIB:.1f} MiB\n")
            assert growth < GROWTH_LIMIT_BYTES


@pytest.mark.slow
async def test_a_file_that_says_it_is_too_large_is_refused_before_it_is_sent(
    ctx: Context, key: str, settings: Settings
) -> None:
    head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 600000000\r\n"
    with served(settings) as (url, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
        writer.write(f"{head}Content-Type: {HEADERS['Content-Type']}\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.readuntil(b"}}"), 10)
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"file_too_large"' in answer


async def _round_trip(client: httpx.AsyncClient, url: str, size_mib: int) -> None:
    """Uploads a file as one stream, downloads it, and compares."""
    made = await client.post(f"{url}/files", content=_form(size_mib), headers=HEADERS)
    assert made.status_code == 200, made.text
    assert made.json()["bytes"] == size_mib * MIB
    found = hashlib.sha256()
    async with client.stream("GET", f"{url}/files/{made.json()['id']}/content") as answer:
        async for chunk in answer.aiter_bytes():
            found.update(chunk)
    wanted = hashlib.sha256()
    for _ in range(16 * size_mib):
        wanted.update(BLOCK)
    assert found.hexdigest() == wanted.hexdigest()


async def _form(size_mib: int) -> AsyncIterator[bytes]:
    yield field("purpose", "fine-tune")
    head, tail = file_part(b"|").split(b"|")
    yield head
    for _ in range(16 * size_mib):
        yield BLOCK
    yield tail + END


def _peak_bytes(pid: int) -> int:
    """The most memory that the process has ever held."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _wait(url: str) -> None:
    for _ in range(300):
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")
