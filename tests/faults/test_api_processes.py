"""Several API processes at one port: every one serves, a killed one is restarted while the others serve, all end."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from service.operations import keys
from service.settings.settings import Settings
from tests.given.installation import installed
from tests.given.running_service import ROOT, free_ports

pytestmark = pytest.mark.slow
PROCESSES = 2
ASKS = 400
PROCESS = re.compile(r'process_start_time_seconds\{process="(\d)"\} (\S+)')


@contextmanager
def serving(folder: Path, port: int) -> Iterator[psutil.Process]:
    environment = os.environ | {"LUTHIER_DATA_DIR": str(folder), "LUTHIER_PORT": str(port)}
    command = [sys.executable, "-m", "service", "serve", "--processes", str(PROCESSES)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


async def seen(port: int, key: str, until: int) -> dict[str, str]:
    """Number and start of each process that responds, asked over new connections until `until` have been seen."""
    found: dict[str, str] = {}
    for _ in range(ASKS):
        with contextlib.suppress(httpx.TransportError):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                response = await client.get("/metrics", headers={"Authorization": f"Bearer {key}"})
                assert response.status_code == 200
                found |= dict(PROCESS.findall(response.text))
        if len(found) == until:
            break
        await asyncio.sleep(0.1)
    return found


async def test_every_process_serves_a_killed_one_is_restarted_and_all_end_with_their_parent(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", engine_urls="http://127.0.0.1:1")
    (port,) = free_ports(1)
    async with installed(settings) as ctx:
        await keys.ensure_installation(ctx)
        key = await keys.create_key(ctx, "default", "admin")
    with serving(settings.data_dir, port) as parent:
        before = await seen(port, key, PROCESSES)
        assert before.keys() == {"1", "2"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            assert (await client.get("/v1/models", headers=[("X-A", "b")] * 200)).status_code == 431
        children = parent.children()
        victim = next(child for child in children if child.cmdline()[-1] == "1")
        victim.send_signal(signal.SIGKILL)
        assert (await seen(port, key, 1)).keys() == {"2"}
        after = before
        for _ in range(ASKS):
            after = await seen(port, key, PROCESSES)
            if after.get("1", before["1"]) != before["1"]:
                break
        assert (after["1"] != before["1"], after["2"]) == (True, before["2"])
        children = parent.children()
        parent.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(parent.wait, 60) == 0
        assert [child for child in children if child.is_running()] == []
