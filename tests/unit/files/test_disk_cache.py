"""The cache of artifacts that both engines use: bounded, the least recently used go first, nothing in use goes."""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.domain.model import Manifest, model_name
from service.storage import ObjectStore
from tests.given.engines import load_tiny, local_store, publish, save_adapter
from workers.files.artifacts import cached_folder
from workers.files.disk_cache import ArtifactTooLarge, CacheFull, DiskCache, Touches, trim


async def stored(folder: Path, count: int) -> tuple[ObjectStore, list[Manifest], int]:
    """Artifacts of one size in a store; answers that too."""
    base, loaded = await asyncio.to_thread(load_tiny, folder / "base")
    store, cache = local_store(folder / "objects"), folder / "sizes"
    for number in range(count):
        adapter = await asyncio.to_thread(save_adapter, loaded, folder / f"a{number}", number)
        await publish(store, base, loaded, adapter, f"cache{number:03}")
    opened = DiskCache(store, cache, 2**30)
    manifests = [await opened.manifest(model_name(base.id, "acme", None, f"cache{n:03}")) for n in range(count)]
    size = sum(file.stat().st_size for file in (await opened.keep(manifests[0])).iterdir())
    return store, manifests, size


async def test_a_cache_takes_no_more_than_its_limit_and_deletes_nothing(tmp_path: Path) -> None:
    store, manifests, size = await stored(tmp_path, 4)
    cache = DiskCache(store, tmp_path / "cache", int(size * 2.5))
    found = await asyncio.gather(*(cache.keep(manifest) for manifest in manifests), return_exceptions=True)
    fitting = [number for number, one in enumerate(found) if not isinstance(one, CacheFull)]
    assert len(fitting) == 2
    assert await cache.keep(manifests[fitting[0]]) == found[fitting[0]]
    with pytest.raises(ArtifactTooLarge):
        await DiskCache(store, tmp_path / "cache", size // 2).keep(manifests[3])


async def test_trimming_keeps_what_was_used_last(tmp_path: Path) -> None:
    store, manifests, size = await stored(tmp_path, 4)
    folder = tmp_path / "cache"
    for age, manifest in enumerate(manifests):
        fetched = await DiskCache(store, folder, size * 10).keep(manifest)
        os.utime(fetched, (1000 + age, 1000 + age))
    (folder / ".partial-left").mkdir()
    Touches(folder).touch(manifests[0].name)
    assert trim(folder, size * 2.5) == [cached_folder(folder, manifests[n].name).name for n in (1, 2)]
    assert {path.name for path in folder.iterdir()} == {cached_folder(folder, manifests[n].name).name for n in (0, 3)}
    assert trim(folder, size * 2.5) == []


async def test_a_lent_folder_stays_until_it_is_given_back(tmp_path: Path) -> None:
    store, manifests, size = await stored(tmp_path, 3)
    cache = DiskCache(store, tmp_path / "cache", int(size * 1.5))
    async with AsyncExitStack() as lent:
        first = await lent.enter_async_context(cache.lend(manifests[0].name))
        for other in manifests[1:]:
            async with cache.lend(other.name) as folder:
                assert folder.is_dir()
            assert first.is_dir() and not folder.exists()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.name]
