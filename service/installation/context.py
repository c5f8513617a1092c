"""What every operation works with: the parts of one installation, picked by `service.installation.create`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from arq.connections import ArqRedis

from service.db.connection import Database
from service.queue import Queue
from service.recipes.catalogue import Catalogue
from service.settings.settings import Settings
from service.storage import ObjectStore


@dataclass(frozen=True)
class Context:
    """The parts; made once per process."""

    settings: Settings
    catalogue: Catalogue
    database: Database
    storage: ObjectStore
    queue: Queue
    engines: Mapping[str, Sequence[str]]  # base id -> the URLs of its engines
    redis: ArqRedis | None  # only for what may be lost

    async def close(self) -> None:
        if self.redis is not None:
            await self.redis.aclose(close_connection_pool=True)
        await self.database.close()
        await self.storage.close()
