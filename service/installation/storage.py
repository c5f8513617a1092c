"""The object store of an installation: the one place where it is made. Few imports: engines need nothing else.

Also imported inside vLLM's environment, which has neither SQLAlchemy nor arq: it must not import the rest of this room.
"""

from service.settings.settings import Settings
from service.storage import ObjectStore, S3Config, create_storage


def open_storage(settings: Settings) -> ObjectStore:
    """The store that the settings name. Raises ValueError for settings that cannot work; sends no request yet."""
    return create_storage(
        settings.storage,
        S3Config(
            endpoint_url=settings.storage_endpoint_url,
            region=settings.storage_region,
            access_key_id=settings.storage_access_key_id,
            secret_access_key=settings.storage_secret_access_key.get_secret_value(),
            addressing_style=settings.storage_addressing_style,
            part_bytes=settings.storage_part_bytes,
            connect_timeout_seconds=settings.storage_connect_timeout_seconds,
            read_timeout_seconds=settings.storage_read_timeout_seconds,
            attempts=settings.storage_attempts,
        ),
    )
