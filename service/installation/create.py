"""Settings to Context: the one place that picks implementations."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from service.db.connection import Database, PoolLimits
from service.db.until_commit import UntilCommit
from service.gateway.forward import Gateway
from service.gateway.limits import PerMinute, create_limits
from service.gateway.places import Capacity, create_places
from service.installation.context import Context
from service.installation.engine_key import bearer, engine_key
from service.installation.private import make_private
from service.installation.reserve import DiskReserve
from service.installation.storage import open_storage
from service.queue import RedisConnection, create_queue, create_turns
from service.recipes.catalogue import Catalogue, CatalogueError, read_catalogue
from service.recipes.engines import engines_by_base
from service.settings.settings import Settings
from service.webhooks.sender import WebhookSender

LEASE_SHARE = 0.7  # of a lease may pass in an attempt of a webhook: it must be recorded before the lease ends


def create_context(settings: Settings, *, prepare: bool = True) -> Context:
    """The parts of this installation. Raises CatalogueError or ValueError for settings that cannot work.

    `prepare` makes the data folder where it is missing; without it nothing is written.
    """
    redis = RedisConnection(settings.redis_url) if settings.redis_url else None
    catalogue = read_catalogue(settings.catalogue)
    _check_names(settings, catalogue)
    engines = engines_by_base(catalogue, settings.engines)
    if prepare:
        make_private(settings.data_dir)
    database = Database(settings.database, _database_limits(settings))
    return Context(
        settings=settings,
        catalogue=catalogue,
        database=database,
        storage=open_storage(settings),
        queue=create_queue(
            redis,
            poll_seconds=settings.poll_seconds,
            sweep_seconds=settings.sweep_seconds,
            last_commit=database.last_commit,
            folder=settings.scratch_dir / "bells" if not settings.database_url else None,
        ),
        turns=create_turns(redis),
        engines=engines,
        gateway=Gateway(engines, settings.engine_timeout_seconds, lambda: bearer(engine_key(settings))),
        names=UntilCommit(database.last_commit),
        limits=create_limits(PerMinute(settings.requests_per_minute, settings.tokens_per_minute), redis),
        reserve=DiskReserve(
            settings.data_dir,
            settings.reserve_bytes if not settings.database_url else 0,
            embedded=not settings.database_url,
        ),
        webhooks=WebhookSender(
            min(settings.webhook_seconds, LEASE_SHARE * settings.lease_seconds), private=settings.webhook_private
        ),
        places=create_places(_capacity(settings, catalogue, engines), redis),
    )


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Context]:
    """The parts of this installation, closed when the block ends. Raises what `create_context` raises."""
    ctx = create_context(settings)
    try:
        yield ctx
    finally:
        await ctx.close()


def _check_names(settings: Settings, catalogue: Catalogue) -> None:
    """Raises CatalogueError where a setting names a base that is not in the catalogue."""
    for setting, names in (("ENGINE_BASE", [settings.engine_base]), ("BASES", settings.held_bases)):
        try:
            catalogue.named([name for name in names if name])
        except CatalogueError as error:
            raise CatalogueError(f"LUTHIER_{setting}: {error}") from error


def _capacity(settings: Settings, catalogue: Catalogue, engines: Mapping[str, Sequence[str]]) -> Capacity:
    """What the engines of each base can generate at once."""
    each = {"embedded": settings.engine_batch_rows, "vllm": settings.vllm_sequences}
    places = {base.id: each[base.serving.engine] * len(engines[base.id]) for base in catalogue.bases.values()}
    requests, shares = settings.project_requests, settings.api_processes
    if not settings.redis_url:  # nobody counts those of all processes together
        places = {id: -(-count // shares) for id, count in places.items()}
        requests = -(-requests // shares)
    return Capacity(places, requests, settings.engine_timeout_seconds)


def _database_limits(settings: Settings) -> PoolLimits:
    return PoolLimits(
        connections=settings.database_connections,
        connect_seconds=settings.database_connect_seconds,
        command_seconds=settings.database_command_seconds,
        lock_seconds=settings.database_lock_seconds,
    )
