"""What every operation works with: the parts of one installation, picked by `service.bootstrap`."""

from dataclasses import dataclass

from service.db.connection import Database
from service.domain.base import Catalogue
from service.queue import Queue
from service.settings import Settings
from service.storage import ObjectStore


@dataclass(frozen=True)
class Context:
    """The parts; made once per process."""

    settings: Settings
    catalogue: Catalogue
    database: Database
    storage: ObjectStore
    queue: Queue

    async def close(self) -> None:
        await self.database.close()
        await self.storage.close()
