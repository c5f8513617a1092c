"""Artifacts go into storage whole or not at all, and come out as they went in or not at all."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.domain.model import MANIFEST, Manifest
from service.domain.storage_keys import artifact_prefix
from service.storage.base import ObjectExists, ObjectMissing, one_chunk
from service.storage.local import LocalStore
from workers.files.artifacts import ArtifactCorrupt, fetch_artifact, read_manifest, store_artifact, verify_artifact

NAME = "ft:tiny:luthier:my suffix:a1b2c3d4"
CONTENT = {"adapter_config.json": b"{}\n", "adapter_model.safetensors": bytes(range(256)) * 9000}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "objects")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    return folder


def manifest(name: str = NAME) -> Manifest:
    return Manifest(
        name=name,
        job_id="ftjob-1",
        step=3,
        base="tiny",
        base_source="tiny",
        base_revision="0" * 40,
        base_hashes={},
        tuning="lora",
        objective="supervised",
        hyperparameters={},
        seed=1,
        parent=None,
        data_hashes={},
        environment={},
        metrics={},
        files={},
        created_at=0,
    )


async def keys(store: LocalStore) -> set[str]:
    return {found.key async for found in store.list("adapters/")}


async def test_what_was_stored_is_fetched_with_its_manifest(
    store: LocalStore, checkpoint: Path, tmp_path: Path
) -> None:
    stored = await store_artifact(store, checkpoint, manifest())
    assert set(stored.files) == set(CONTENT)
    assert await read_manifest(store, NAME) == stored
    folder = await fetch_artifact(store, NAME, tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST} == CONTENT
    assert Manifest.model_validate_json((folder / MANIFEST).read_bytes()) == stored
    await verify_artifact(folder, stored)
    assert folder.parent == tmp_path / "cache" and len(list(folder.parent.iterdir())) == 1


async def test_storing_twice_gives_the_same(store: LocalStore, checkpoint: Path) -> None:
    assert await store_artifact(store, checkpoint, manifest()) == await store_artifact(store, checkpoint, manifest())
    assert len(await keys(store)) == 3


async def test_a_published_artifact_is_never_replaced(store: LocalStore, checkpoint: Path, tmp_path: Path) -> None:
    first = await store_artifact(store, checkpoint, manifest())
    (checkpoint / "adapter_config.json").write_text("{ }", encoding="utf-8")
    with pytest.raises(ObjectExists):
        await store_artifact(store, checkpoint, manifest())
    assert await read_manifest(store, NAME) == first


async def test_an_upload_that_breaks_off_leaves_no_artifact(
    store: LocalStore, checkpoint: Path, tmp_path: Path
) -> None:
    class Breaking(LocalStore):
        """A disk that fails at the second object."""

        async def put(self, key: str, chunks: AsyncIterator[bytes], *, replace: bool = True) -> int:
            if key.endswith(".safetensors"):
                raise OSError("no space left")
            return await super().put(key, chunks, replace=replace)

    with pytest.raises(OSError, match="no space"):
        await store_artifact(Breaking(tmp_path / "objects"), checkpoint, manifest())
    assert await keys(store) == {artifact_prefix(NAME) + "adapter_config.json"}
    with pytest.raises(ObjectMissing):
        await fetch_artifact(store, NAME, tmp_path / "cache")


async def test_a_changed_byte_in_storage_is_found(store: LocalStore, checkpoint: Path, tmp_path: Path) -> None:
    await store_artifact(store, checkpoint, manifest())
    await store.put(artifact_prefix(NAME) + "adapter_config.json", one_chunk(b"{ }"))
    with pytest.raises(ArtifactCorrupt, match=r"adapter_config\.json"):
        await fetch_artifact(store, NAME, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


async def test_a_changed_byte_in_the_cache_is_fetched_again(
    store: LocalStore, checkpoint: Path, tmp_path: Path
) -> None:
    await store_artifact(store, checkpoint, manifest())
    folder = await fetch_artifact(store, NAME, tmp_path / "cache")
    (folder / "adapter_config.json").write_bytes(b"{?")
    assert await fetch_artifact(store, NAME, tmp_path / "cache") == folder
    assert (folder / "adapter_config.json").read_bytes() == CONTENT["adapter_config.json"]


async def test_the_cache_needs_no_storage(store: LocalStore, checkpoint: Path, tmp_path: Path) -> None:
    await store_artifact(store, checkpoint, manifest())
    folder = await fetch_artifact(store, NAME, tmp_path / "cache")
    assert await fetch_artifact(LocalStore(tmp_path / "elsewhere"), NAME, tmp_path / "cache") == folder


async def test_several_fetches_at_once_agree(store: LocalStore, checkpoint: Path, tmp_path: Path) -> None:
    await store_artifact(store, checkpoint, manifest())
    folders = await asyncio.gather(*(fetch_artifact(store, NAME, tmp_path / "cache") for _ in range(5)))
    assert len(set(folders)) == 1 and len(list((tmp_path / "cache").iterdir())) == 1


async def test_a_manifest_that_reaches_outside_its_folder_is_refused(store: LocalStore, tmp_path: Path) -> None:
    evil = manifest().model_copy(update={"files": {"../../escaped": "0" * 64}})
    await store.put(artifact_prefix(NAME) + MANIFEST, one_chunk(evil.model_dump_json().encode()))
    with pytest.raises(ArtifactCorrupt):
        await fetch_artifact(store, NAME, tmp_path / "cache")


async def test_a_manifest_of_another_model_is_refused(store: LocalStore, checkpoint: Path, tmp_path: Path) -> None:
    other = "ft:tiny:luthier::zzzzzzzz"
    await store.put(artifact_prefix(other) + MANIFEST, one_chunk(manifest().model_dump_json().encode()))
    with pytest.raises(ArtifactCorrupt):
        await fetch_artifact(store, other, tmp_path / "cache")
