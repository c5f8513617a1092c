"""Objects: write-once bytes under keys. `create_storage` picks the implementation by the URL's scheme."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from service.storage.base import ObjectMissing, ObjectStore, StorageError
from service.storage.local import LocalStore

__all__ = ["ObjectMissing", "ObjectStore", "StorageError", "create_storage"]


def create_storage(url: str) -> ObjectStore:
    """`file:///folder` is a local directory. Raises ValueError for a scheme that nobody implements."""
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc:
        return LocalStore(Path(unquote(parts.path)))
    raise ValueError(f"LUTHIER_STORAGE_URL: no object store for '{url}'; use file:///folder.")
