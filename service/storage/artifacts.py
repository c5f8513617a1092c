"""The manifest of a stored artifact: read and checked before any of its files is.

Used by the service, which hands artifacts out, and by what holds tensors (`workers.files.artifacts`). Has no jobs.
"""

from pathlib import Path

from pydantic import ValidationError

from service.domain.model import MANIFEST, Manifest
from service.domain.storage_keys import artifact_prefix
from service.storage.base import ObjectStore

MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024


class ArtifactCorrupt(Exception):
    """Files are not the ones that the manifest names; the message says which."""


async def read_manifest(store: ObjectStore, name: str) -> Manifest:
    """The manifest in storage. Raises ObjectMissing, ArtifactCorrupt, StorageError."""
    return parse_manifest(await manifest_bytes(store, name), name)


async def manifest_bytes(store: ObjectStore, name: str) -> bytes:
    """The manifest as it is stored. Raises ObjectMissing, ArtifactCorrupt where it is too large, StorageError."""
    content = bytearray()
    async for chunk in store.open(artifact_prefix(name) + MANIFEST):
        content += chunk
        if len(content) > MANIFEST_LIMIT_BYTES:
            raise ArtifactCorrupt(f"The manifest of '{name}' has more than {MANIFEST_LIMIT_BYTES:,} bytes.")
    return bytes(content)


def parse_manifest(content: bytes, name: str) -> Manifest:
    """Raises ArtifactCorrupt for one that is not of `name`, or that names files elsewhere."""
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ArtifactCorrupt(f"The manifest of '{name}' cannot be read.") from error
    named = [*manifest.files, *(manifest.served.files if manifest.served else ())]
    unsafe = [file for file in named if Path(file).name != file or file == MANIFEST]
    if manifest.name != name or unsafe:
        raise ArtifactCorrupt(f"The manifest of '{name}' is for '{manifest.name}' or names other folders' files.")
    return manifest
