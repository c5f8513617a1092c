"""Settings to Context: the one place that picks implementations."""

from service.db.connection import Database, Limits
from service.domain.base import read_catalogue
from service.operations.context import Context
from service.queue import create_queue
from service.settings import Settings
from service.storage import create_storage


def create_context(settings: Settings) -> Context:
    """The parts of this installation. Raises CatalogueError or ValueError for settings that cannot work."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return Context(
        settings=settings,
        catalogue=read_catalogue(settings.catalogue),
        database=Database(settings.database, _limits(settings)),
        storage=create_storage(settings.storage),
        queue=create_queue(settings.poll_seconds),
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        connections=settings.database_connections,
        connect_seconds=settings.database_connect_seconds,
        command_seconds=settings.database_command_seconds,
        lock_seconds=settings.database_lock_seconds,
    )
