"""The API killed while it delivers to a webhook: the next one delivers the same event again, under the same id."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.operations import jobs, keys, webhook_endpoints
from service.settings.settings import Settings
from tests.given.forked_process import Started, start_process
from tests.given.installation import installed
from tests.given.receiver import receiver
from tests.given.running_service import free_ports
from tests.given.stored_jobs import add_job

pytestmark = pytest.mark.slow
CANCELLED = "fine_tuning.job.cancelled"


@contextmanager
def api(folder: Path, port: int) -> Iterator[Started]:
    """An API process of the installation in `folder`; killed at the end, if not before."""
    environment = {
        **os.environ,
        "LUTHIER_DATA_DIR": str(folder),
        "LUTHIER_PORT": str(port),
        "LUTHIER_ENGINE_URLS": "http://127.0.0.1:1",
        "LUTHIER_WEBHOOK_PRIVATE": "true",
        "LUTHIER_LEASE_SECONDS": "3",
    }
    with (folder / "log").open("ab") as log:
        process = start_process(["-m", "service", "serve"], environment, log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_killed_api_has_delivered_at_least_once_under_one_id(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", engine_urls="http://127.0.0.1:1", webhook_private=True)
    (port,) = free_ports(1)
    async with installed(settings) as ctx, receiver() as hook, asyncio.timeout(180):
        key = await keys.ensure_installation(ctx)
        assert key is not None
        caller = await keys.authenticate(ctx, key)
        await webhook_endpoints.create(ctx, caller, "ours", hook.url, [CANCELLED])
        hook.silent = True
        await jobs.cancel(ctx, caller, (await add_job(ctx, caller)).id)
        with api(settings.data_dir, port) as first:
            await hook.arrived.wait()
            first.send_signal(signal.SIGKILL)
        hook.silent = False
        hook.arrived.clear()
        with api(settings.data_dir, port):
            await hook.arrived.wait()
    assert len(hook.received) >= 2
    assert len({(one.id, one.body) for one in hook.received}) == 1
