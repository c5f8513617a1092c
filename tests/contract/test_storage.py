"""What every object store must do. One suite over every implementation: a local folder, and a real S3 server."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from service.installation.storage import open_storage
from service.settings.settings import Settings
from service.storage import ObjectExists, ObjectMissing, ObjectStore, StorageError
from service.storage.base import CHUNK_BYTES, one_chunk, read
from service.storage.local import TEMPORARY, LocalStore
from tests.servers.radosgw import Radosgw

BIG = bytes(range(256)) * (3 * CHUNK_BYTES // 256) + b"tail"


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    if request.param == "local":
        settings = Settings(storage_url=f"file://{tmp_path / 'objects'}")
    else:
        radosgw: Radosgw = request.getfixturevalue("radosgw")
        settings = Settings(**radosgw.settings, storage_url=f"{radosgw.new_bucket()}/a/prefix")
    store = open_storage(settings)
    yield store
    await store.close()


async def chunks(content: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def keys(store: ObjectStore, prefix: str) -> list[str]:
    return [found.key async for found in store.list(prefix)]


async def test_a_store_that_can_be_used_says_so(store: ObjectStore) -> None:
    await store.check()
    assert await keys(store, "") == []


@pytest.mark.parametrize("content", [b"", b"x", BIG], ids=["empty", "one-byte", "several-chunks"])
async def test_what_was_put_is_read_back(store: ObjectStore, content: bytes) -> None:
    assert await store.put("files/a/0", chunks(content)) == len(content)
    assert await store.size("files/a/0") == len(content)
    assert await read(store, "files/a/0") == content


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 1),
        (5, 5),
        (3, 10),
        (CHUNK_BYTES - 1, 2 * CHUNK_BYTES + 1),
        (7, None),
        (3, 10**9),
        (10**8, 10**9),
        (10**8, None),
    ],
)
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
    with pytest.raises(ObjectMissing):
        await anext(aiter(store.open("files/none", 3, 3)), None)


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
    await store.close()
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


@pytest.mark.parametrize("content", [b"new", b"new" * (2 * CHUNK_BYTES)], ids=["small", "large"])
async def test_a_put_that_shall_not_replace_does_not(store: ObjectStore, content: bytes) -> None:
    await store.put("k", chunks(b"old"), replace=False)
    with pytest.raises(ObjectExists, match="k"):
        await store.put("k", chunks(content), replace=False)
    assert await read(store, "k") == b"old"
    assert await keys(store, "") == ["k"]


async def test_of_several_first_puts_at_once_one_wins(store: ObjectStore) -> None:
    contents = [b"%d" % number for number in range(8)]
    answers = await asyncio.gather(
        *(store.put("k", one_chunk(content), replace=False) for content in contents), return_exceptions=True
    )
    won = [content for content, answer in zip(contents, answers, strict=True) if answer == len(content)]
    assert [await read(store, "k")] == won
    assert sum(isinstance(answer, ObjectExists) for answer in answers) == 7


async def test_a_reader_that_stops_early_leaves_the_store_usable(store: ObjectStore) -> None:
    await store.put("k", chunks(BIG))
    for _ in range(40):
        async with aclosing(store.open("k")) as reading:
            assert len(await anext(reading)) > 0
    assert await read(store, "k") == BIG


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


async def test_list_goes_on_after_a_key_and_knows_size_and_time(store: ObjectStore) -> None:
    before = time.time()
    for number in range(4):
        await store.put(f"files/{number}", one_chunk(b"x" * number))
    found = [one async for one in store.list("files/", after="files/1")]
    assert [(one.key, one.bytes) for one in found] == [("files/2", 2), ("files/3", 3)]
    assert all(before - 2 <= one.modified_at <= time.time() + 2 for one in found)


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


async def test_what_a_killed_process_left_in_the_folder_is_removed_when_it_is_old(tmp_path: Path) -> None:
    store, left = LocalStore(tmp_path), tmp_path / TEMPORARY / "half"
    left.parent.mkdir()
    left.write_bytes(b"half")
    assert await store.remove_unfinished(3600) == 0
    assert left.exists()
    assert await store.remove_unfinished(0) == 1
    assert not left.exists()


def test_an_unknown_scheme_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="LUTHIER_STORAGE_URL"):
        open_storage(Settings(storage_url="ftp://host/folder"))
