"""The engine as a process: settings to a listening server. Started by `luthier-worker engine`.

Knows settings, the catalogue and uvicorn; must not know requests.
"""

import asyncio
import socket

import structlog
import torch
import uvicorn

from service.installation.storage import open_storage
from service.recipes.catalogue import read_catalogue
from service.settings.settings import Settings
from workers.engines.embedded.app import create_engine_app
from workers.engines.embedded.engine import Engine, Limits
from workers.model.load import choose_device, load_base

log = structlog.get_logger()
SHUTDOWN_SECONDS = 10  # for answers in progress


def serve_engine(settings: Settings) -> None:
    """Serves one base until SIGTERM or SIGINT; logs `engine.ready` once it answers.

    Raises CatalogueError, StorageUnusable, ValueError or OSError for settings that cannot work.
    """
    base = read_catalogue(settings.catalogue).of_engine(settings.engine_base)
    storage = open_storage(settings)
    asyncio.run(storage.check())
    torch.set_num_threads(settings.engine_threads)
    loaded = load_base(base, choose_device(settings.device))
    limits = Limits(
        batch_rows=settings.engine_batch_rows,
        resident_adapters=settings.engine_resident_adapters,
        adapter_bytes=settings.engine_adapter_bytes,
        cache_bytes=settings.engine_cache_bytes,
    )
    cache = settings.scratch_dir / f"engine-{settings.engine_port}"  # two on one machine have different ports
    engine = Engine(base, loaded, storage, cache, limits)
    config = uvicorn.Config(
        create_engine_app(engine),
        host=settings.engine_host,
        port=settings.engine_port,
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    _Server(config, base.id).run()


class _Server(uvicorn.Server):
    """Says when it listens, and where: port 0 means any free one."""

    def __init__(self, config: uvicorn.Config, base_id: str) -> None:
        super().__init__(config)
        self._base_id = base_id

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        log.info("engine.ready", base=self._base_id, host=host, port=port)
