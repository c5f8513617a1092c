"""Artifacts: storing and fetching an adapter's folder with its manifest.

The manifest is written last, so an artifact without one does not exist; every byte is checked against it. Imports only
`service.storage` and `service.domain`, because vLLM's environment uses it too. Has no jobs.
"""

import asyncio
import hashlib
import secrets
import shutil
from pathlib import Path

from pydantic import ValidationError

from service.domain.model import MANIFEST, SERVED, Manifest
from service.domain.storage_keys import artifact_prefix, quoted
from service.storage.artifacts import ArtifactCorrupt, read_manifest
from service.storage.base import ObjectExists, ObjectStore, one_chunk
from service.storage.hashed import Hashed
from workers.files.transfer import fetch_file, store_file

__all__ = [
    "PARTIAL",
    "ArtifactCorrupt",
    "cached_folder",
    "fetch_artifact",
    "read_manifest",
    "store_artifact",
    "verify_artifact",
    "verify_stored",
]

PARTIAL = ".partial-"  # prefix in a cache of a folder that is incomplete or being deleted
_PRIVATE = 0o600


async def store_artifact(store: ObjectStore, folder: Path, manifest: Manifest) -> Manifest:
    """Stores every file of `folder`, then the manifest with their hashes, and returns that manifest.

    Where the manifest says that another form is served, that form's files are in `folder / SERVED`. May be called again
    after an error. Raises StorageError; ObjectExists where the name has another artifact already.
    """
    prefix = artifact_prefix(manifest.name)
    complete = manifest.model_copy(update={"files": await _store_files(store, folder, prefix)})
    if manifest.served is not None:
        files = await _store_files(store, folder / SERVED, prefix + manifest.served_folder)
        complete = complete.model_copy(update={"served": manifest.served.model_copy(update={"files": files})})
    try:
        await store.put(prefix + MANIFEST, one_chunk(_encode(complete)), replace=False)
    except ObjectExists:
        if await read_manifest(store, manifest.name) != complete:  # else it is this call's own, whose response was lost
            raise
    return complete


async def _store_files(store: ObjectStore, folder: Path, prefix: str) -> dict[str, str]:
    names = await asyncio.to_thread(_file_names, folder)
    return {name: await store_file(store, folder / name, prefix + name) for name in names}


async def verify_artifact(folder: Path, manifest: Manifest) -> None:
    """Raises ArtifactCorrupt unless `folder` holds exactly what engines load, by the manifest."""
    found = await asyncio.to_thread(_hashes, folder)
    if found != manifest.served_files:
        wrong = sorted({name for name, _ in found.items() ^ manifest.served_files.items()})
        raise ArtifactCorrupt(f"The artifact of '{manifest.name}' has missing, foreign or damaged files: {wrong}")


async def verify_stored(store: ObjectStore, name: str) -> None:
    """Reads the artifact of `name` from storage and checks it. Raises ObjectMissing, ArtifactCorrupt, StorageError."""
    manifest = await read_manifest(store, name)
    for file, sha256 in manifest.all_files.items():
        if await Hashed(store.open(artifact_prefix(name) + file)).read_to_end() != sha256:
            raise _damaged(name, file)


async def fetch_artifact(store: ObjectStore, name: str, cache: Path) -> Path:
    """The checked local folder of what engines load of the artifact of `name`, from the cache or else from storage.

    Raises ObjectMissing when there is none, ArtifactCorrupt, StorageError. Several at once may fetch the same.
    """
    target = cached_folder(cache, name)
    if await _is_intact(target):
        return target
    manifest = await read_manifest(store, name)
    partial = cache / f"{PARTIAL}{secrets.token_hex(8)}"
    try:
        await _fetch_files(store, manifest, partial)
        await asyncio.to_thread((partial / MANIFEST).write_bytes, _encode(manifest))
        await asyncio.to_thread(_publish, partial, target)
    finally:
        await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
    return target


def cached_folder(cache: Path, name: str) -> Path:
    """Where `fetch_artifact` puts the artifact of `name`."""
    return cache / quoted(name)


async def _is_intact(folder: Path) -> bool:
    """Whether the folder is whole; what a power cut left of an artifact is removed."""
    if not await asyncio.to_thread(folder.exists):
        return False
    try:
        manifest = Manifest.model_validate_json(await asyncio.to_thread((folder / MANIFEST).read_bytes))
        await verify_artifact(folder, manifest)
    except (OSError, ValidationError, ArtifactCorrupt):
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return False
    return True


async def _fetch_files(store: ObjectStore, manifest: Manifest, folder: Path) -> None:
    await asyncio.to_thread(folder.mkdir, parents=True)
    prefix = artifact_prefix(manifest.name) + manifest.served_folder
    for name, sha256 in manifest.served_files.items():
        if await fetch_file(store, prefix + name, folder / name) != sha256:
            raise _damaged(manifest.name, name)
        await asyncio.to_thread((folder / name).chmod, _PRIVATE)


def _damaged(name: str, file: str) -> ArtifactCorrupt:
    return ArtifactCorrupt(f"The artifact of '{name}' has a damaged file: '{file}'")


def _file_names(folder: Path) -> list[str]:
    """Of every file but the manifest; not of what is in a folder of its own."""
    return sorted(path.name for path in folder.iterdir() if path.name != MANIFEST and path.is_file())


def _hashes(folder: Path) -> dict[str, str]:
    """File name -> sha256 of every file but the manifest."""
    hashes = {}
    for name in _file_names(folder):
        with (folder / name).open("rb") as stream:
            hashes[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes


def _encode(manifest: Manifest) -> bytes:
    return manifest.model_dump_json(indent=2).encode() + b"\n"


def _publish(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise a concurrent fetch was faster, with the same bytes
            raise
