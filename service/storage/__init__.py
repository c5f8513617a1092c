"""Objects: write-once bytes under keys. `create_storage` picks the implementation by the URL's scheme."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from service.settings.settings import Settings
from service.storage.base import ObjectExists, ObjectMissing, ObjectStore, StorageError, StorageUnusable, StoredObject
from service.storage.local import LocalStore

__all__ = [
    "ObjectExists",
    "ObjectMissing",
    "ObjectStore",
    "StorageError",
    "StorageUnusable",
    "StoredObject",
    "create_storage",
]


def create_storage(settings: Settings) -> ObjectStore:
    """The store of this installation: `file:///folder`, or `s3://bucket/prefix` with the settings named STORAGE.

    Raises ValueError for a URL or a setting that cannot work. Nothing is asked of the store yet: see its `check`.
    """
    url = urlsplit(settings.storage)
    if url.scheme == "file" and not url.netloc:
        return LocalStore(Path(unquote(url.path)))
    if url.scheme == "s3" and url.netloc:
        from service.storage.s3 import S3Store  # noqa: PLC0415  boto3 is loaded only where it is needed
        from service.storage.s3_requests import S3Requests  # noqa: PLC0415

        requests = S3Requests(settings, bucket=url.netloc)
        return S3Store(requests, url.path.strip("/"), settings.storage_part_bytes, settings.storage_attempts)
    raise ValueError(
        f"LUTHIER_STORAGE_URL: no object store for '{settings.storage}'; use file:///folder or s3://bucket/prefix."
    )
