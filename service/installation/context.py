"""What every operation works with: the parts of one installation, picked by `service.installation.create`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.db.connection import Database
from service.gateway.forward import Gateway
from service.gateway.limits import RateLimits
from service.gateway.names import Names
from service.gateway.places import Places
from service.installation.reserve import DiskReserve
from service.queue import Queue, Turns
from service.recipes.catalogue import Catalogue
from service.settings.settings import Settings
from service.storage import ObjectStore
from service.webhooks.sender import WebhookSender


@dataclass(frozen=True)
class Context:
    """The parts; made once per process. None of them connects before it is used."""

    settings: Settings
    catalogue: Catalogue
    database: Database
    storage: ObjectStore
    queue: Queue
    turns: Turns
    engines: Mapping[str, Sequence[str]]  # base id -> the URLs of its engines
    gateway: Gateway
    names: Names
    limits: RateLimits
    places: Places
    reserve: DiskReserve
    webhooks: WebhookSender

    async def close(self) -> None:
        await self.gateway.close()
        await self.queue.close()
        await self.database.close()
        await self.storage.close()
