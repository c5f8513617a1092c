"""Objects: write-once bytes under keys. `create_storage` picks the implementation by the URL's scheme."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from service.storage.base import ObjectExists, ObjectMissing, ObjectStore, StorageError, StorageUnusable, StoredObject
from service.storage.config import S3Config
from service.storage.local import LocalStore

__all__ = [
    "ObjectExists",
    "ObjectMissing",
    "ObjectStore",
    "S3Config",
    "StorageError",
    "StorageUnusable",
    "StoredObject",
    "create_storage",
]


def create_storage(url: str, s3: S3Config) -> ObjectStore:
    """The store at `url`: `file:///folder`, or `s3://bucket/prefix`, reached with the options of `s3`.

    Raises ValueError for a URL or a setting that cannot work. Nothing is asked of the store yet: see its `check`.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc:
        return LocalStore(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        from service.storage.s3 import S3Store  # noqa: PLC0415  boto3 is loaded only where it is needed
        from service.storage.s3_requests import S3Requests  # noqa: PLC0415

        requests = S3Requests(s3, bucket=parts.netloc)
        return S3Store(requests, parts.path.strip("/"), s3.part_bytes, s3.attempts)
    raise ValueError(f"LUTHIER_STORAGE_URL: no object store for '{url}'; use file:///folder or s3://bucket/prefix.")
