"""What every object store must do. One suite over every implementation."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.storage import ObjectMissing, ObjectStore, StorageError, create_storage
from service.storage.base import CHUNK_BYTES, one_chunk, read

BIG = bytes(range(256)) * (3 * CHUNK_BYTES // 256) + b"tail"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return create_storage(f"file://{tmp_path / 'objects'}")


async def chunks(content: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def keys(store: ObjectStore, prefix: str) -> list[str]:
    return sorted([key async for key in store.list(prefix)])


@pytest.mark.parametrize("content", [b"", b"x", BIG], ids=["empty", "one-byte", "several-chunks"])
async def test_what_was_put_is_read_back(store: ObjectStore, content: bytes) -> None:
    assert await store.put("files/a/0", chunks(content)) == len(content)
    assert await store.size("files/a/0") == len(content)
    assert await read(store, "files/a/0") == content


@pytest.mark.parametrize(("start", "end"), [(0, 1), (5, 5), (3, 10), (CHUNK_BYTES - 1, 2 * CHUNK_BYTES + 1), (7, None)])
async def test_a_range_is_half_open(store: ObjectStore, start: int, end: int | None) -> None:
    await store.put("k", chunks(BIG))
    assert b"".join([chunk async for chunk in store.open("k", start, end)]) == BIG[start:end]


async def test_no_chunk_is_larger_than_promised(store: ObjectStore) -> None:
    await store.put("k", chunks(BIG))
    assert max([len(chunk) async for chunk in store.open("k")]) <= CHUNK_BYTES


async def test_a_missing_key_is_named(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing, match="files/none"):
        await read(store, "files/none")
    with pytest.raises(ObjectMissing):
        await store.size("files/none")


async def test_a_failed_put_leaves_nothing(store: ObjectStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises((ConnectionResetError, StorageError)):
        await store.put("files/half", broken())
    assert await keys(store, "") == []


async def test_a_cancelled_put_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    started = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"half"
        started.set()
        await asyncio.sleep(60)

    put = asyncio.create_task(store.put("files/half", endless()))
    await started.wait()
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert await keys(store, "") == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_put_is_invisible_until_it_is_whole(store: ObjectStore) -> None:
    seen: list[list[str]] = []

    async def watched() -> AsyncIterator[bytes]:
        yield b"half"
        seen.append(await keys(store, ""))
        yield b"rest"

    await store.put("files/a", watched())
    assert seen == [[]]
    assert await keys(store, "") == ["files/a"]


async def test_a_put_replaces_what_was_there(store: ObjectStore) -> None:
    await store.put("k", one_chunk(b"old and long"))
    await store.put("k", one_chunk(b"new"))
    assert await read(store, "k") == b"new"


async def test_deleting_is_final_and_may_happen_twice(store: ObjectStore) -> None:
    await store.put("k", one_chunk(b"x"))
    await store.delete("k")
    await store.delete("k")
    with pytest.raises(ObjectMissing):
        await read(store, "k")


async def test_list_finds_by_prefix_and_nothing_else(store: ObjectStore) -> None:
    for key in ("jobs/a/1", "jobs/a/2/x", "jobs/ab/1", "files/a"):
        await store.put(key, one_chunk(b"x"))
    assert await keys(store, "jobs/a/") == ["jobs/a/1", "jobs/a/2/x"]
    assert await keys(store, "jobs/a") == ["jobs/a/1", "jobs/a/2/x", "jobs/ab/1"]
    assert await keys(store, "nothing/") == []


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a/../../b", "a//b", "./a", "a/.", "a\x00b", "a b"])
async def test_a_key_cannot_leave_the_store(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="storage key"):
        await store.put(key, one_chunk(b"x"))
    with pytest.raises(ValueError, match="storage key"):
        await read(store, key)


async def test_names_of_models_are_keys(store: ObjectStore) -> None:
    key = "adapters/ft%3Abase%3Aorg%3A%3AAbCd1234%3Ackpt-step-10/adapter_model.safetensors"
    await store.put(key, one_chunk(b"x"))
    assert await keys(store, "adapters/ft%3Abase%3Aorg%3A%3AAbCd1234%3Ackpt-step-10/") == [key]


def test_an_unknown_scheme_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="LUTHIER_STORAGE_URL"):
        create_storage("ftp://host/folder")
