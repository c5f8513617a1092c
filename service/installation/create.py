"""Settings to Context: the one place that picks implementations."""

from service.db.connection import Database, Limits
from service.installation.context import Context
from service.queue import create_queue
from service.queue.redis import create_redis
from service.recipes.catalogue import read_catalogue
from service.recipes.engines import engines_by_base
from service.settings.settings import Settings
from service.storage import create_storage


def create_context(settings: Settings) -> Context:
    """The parts of this installation. Raises CatalogueError or ValueError for settings that cannot work."""
    redis = create_redis(settings.redis_url) if settings.redis_url else None
    catalogue = read_catalogue(settings.catalogue)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return Context(
        settings=settings,
        catalogue=catalogue,
        database=Database(settings.database, _limits(settings)),
        storage=create_storage(settings),
        queue=create_queue(redis, poll_seconds=settings.poll_seconds, sweep_seconds=settings.sweep_seconds),
        engines=engines_by_base(catalogue, settings.engines),
        redis=redis,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        connections=settings.database_connections,
        connect_seconds=settings.database_connect_seconds,
        command_seconds=settings.database_command_seconds,
        lock_seconds=settings.database_lock_seconds,
    )
