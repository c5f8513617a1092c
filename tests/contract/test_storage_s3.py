"""What the S3 store promises beyond the port: parts, bounded memory, cleaning up, and a server that comes back."""

import asyncio
import hashlib
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from service.installation.storage import open_storage
from service.settings.settings import MIB, Settings
from service.storage import ObjectStore, StorageUnusable
from service.storage.base import CHUNK_BYTES, one_chunk, read
from tests.servers.radosgw import Radosgw

pytestmark = pytest.mark.slow
PART_BYTES = 5 * MIB


@pytest.fixture
def bucket(radosgw: Radosgw) -> str:
    return radosgw.new_bucket()


@pytest.fixture
async def store_with(radosgw: Radosgw, bucket: str) -> AsyncIterator[Callable[..., ObjectStore]]:
    """Makes a store with other settings than these."""
    made: list[ObjectStore] = []

    def make(**changed: Any) -> ObjectStore:
        settings = {**radosgw.settings, "storage_url": bucket, "storage_part_bytes": PART_BYTES, **changed}
        made.append(open_storage(Settings(**settings)))
        return made[-1]

    yield make
    for store in made:
        await store.close()


async def zeros(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, CHUNK_BYTES):
        yield bytes(min(CHUNK_BYTES, size - start))


async def digest(store: ObjectStore, key: str) -> str:
    found = hashlib.sha256()
    async for chunk in store.open(key):
        found.update(chunk)
    return found.hexdigest()


def unfinished(radosgw: Radosgw, bucket: str) -> int:
    return len(radosgw.client.list_multipart_uploads(Bucket=bucket[5:]).get("Uploads", []))


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        (PART_BYTES - 1, None),
        (PART_BYTES, None),
        (PART_BYTES + 1, 2),
        (2 * PART_BYTES, 2),
        (3 * PART_BYTES + CHUNK_BYTES // 2, 4),
    ],
)
async def test_what_fits_into_one_part_is_one_request(
    radosgw: Radosgw, bucket: str, store_with: Callable[..., ObjectStore], size: int, parts: int | None
) -> None:
    store = store_with()
    assert await store.put("k", zeros(size)) == size
    assert await digest(store, "k") == hashlib.sha256(bytes(size)).hexdigest()
    etag = radosgw.client.head_object(Bucket=bucket[5:], Key="k")["ETag"].strip('"')
    assert etag.partition("-")[2] == ("" if parts is None else str(parts))


async def test_a_large_object_passes_through_little_memory(store_with: Callable[..., ObjectStore]) -> None:
    store, size = store_with(), 40 * MIB
    expected = hashlib.sha256(bytes(size)).hexdigest()
    await store.check()  # boto3's own tables are loaded
    tracemalloc.start()
    try:
        assert await store.put("k", zeros(size)) == size
        up = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        assert await digest(store, "k") == expected
        down = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert up < 6 * PART_BYTES  # four, the chunks in hand, and what else this process does meanwhile; it has eight
    assert down < 8 * CHUNK_BYTES


async def test_a_cancelled_upload_leaves_no_parts(
    radosgw: Radosgw, bucket: str, store_with: Callable[..., ObjectStore]
) -> None:
    store, begun = store_with(), asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        async for chunk in zeros(4 * PART_BYTES):
            yield chunk
        begun.set()
        await asyncio.sleep(60)

    put = asyncio.create_task(store.put("k", endless()))
    await begun.wait()
    assert unfinished(radosgw, bucket) == 1
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    await store.close()
    assert unfinished(radosgw, bucket) == 0
    assert "Contents" not in radosgw.client.list_objects_v2(Bucket=bucket[5:])


async def test_a_put_that_is_cancelled_in_its_last_request_leaves_nothing(
    radosgw: Radosgw, bucket: str, store_with: Callable[..., ObjectStore]
) -> None:
    store = store_with()
    radosgw.pause()
    try:
        put = asyncio.create_task(store.put("k", one_chunk(b"x")))
        await asyncio.sleep(0.5)
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
    finally:
        radosgw.resume()
    await store.close()
    assert "Contents" not in radosgw.client.list_objects_v2(Bucket=bucket[5:])


async def test_what_a_killed_process_left_unfinished_is_removed_when_it_is_old(
    radosgw: Radosgw, bucket: str, store_with: Callable[..., ObjectStore]
) -> None:
    store, client = store_with(), radosgw.client
    left = client.create_multipart_upload(Bucket=bucket[5:], Key="files/f/0")["UploadId"]
    part = bytes(PART_BYTES)
    client.upload_part(Bucket=bucket[5:], Key="files/f/0", UploadId=left, PartNumber=1, Body=part)
    assert await store.remove_unfinished(3600) == 0
    assert unfinished(radosgw, bucket) == 1
    await asyncio.sleep(1.1)  # the server counts in seconds
    assert await store.remove_unfinished(0) == 1
    assert unfinished(radosgw, bucket) == 0


async def test_more_objects_than_one_answer_lists(store_with: Callable[..., ObjectStore]) -> None:
    store = store_with()
    limit = asyncio.Semaphore(8)

    async def put(number: int) -> None:
        async with limit:
            await store.put(f"files/{number:04}", one_chunk(b""))

    await asyncio.gather(*(put(number) for number in range(1003)))
    assert [found.key async for found in store.list("files/")] == [f"files/{number:04}" for number in range(1003)]


async def test_a_restarted_server_still_has_what_was_stored(
    radosgw: Radosgw, store_with: Callable[..., ObjectStore]
) -> None:
    store = store_with()
    await store.put("k", zeros(PART_BYTES + 1))
    radosgw.stop_gateway()
    radosgw.start_gateway()
    assert await store.size("k") == PART_BYTES + 1
    assert await digest(store, "k") == hashlib.sha256(bytes(PART_BYTES + 1)).hexdigest()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"storage_secret_access_key": "wrong"}, "LUTHIER_STORAGE_SECRET_ACCESS_KEY: the secret does not belong"),
        ({"storage_access_key_id": "wrong"}, "LUTHIER_STORAGE_ACCESS_KEY_ID: .* does not know this access key"),
        ({"storage_url": "s3://nowhere"}, "LUTHIER_STORAGE_URL: there is no bucket 'nowhere'"),
        ({"storage_endpoint_url": "http://127.0.0.1:1", "storage_attempts": 1}, "LUTHIER_STORAGE_ENDPOINT_URL: "),
    ],
    ids=["secret", "key", "bucket", "endpoint"],
)
async def test_a_setup_that_cannot_work_is_told_by_the_setting_to_mend(
    store_with: Callable[..., ObjectStore], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(StorageUnusable, match=message):
        await store_with(**changed).check()


async def test_a_secret_without_its_key_is_refused_at_once(store_with: Callable[..., ObjectStore]) -> None:
    with pytest.raises(ValueError, match="LUTHIER_STORAGE_SECRET_ACCESS_KEY"):
        store_with(storage_secret_access_key="")


async def test_a_store_reads_what_an_installation_under_another_prefix_does_not_see(
    bucket: str, store_with: Callable[..., ObjectStore]
) -> None:
    one, other = store_with(storage_url=f"{bucket}/one"), store_with(storage_url=f"{bucket}/other")
    await one.put("k", one_chunk(b"one"))
    await other.put("k", one_chunk(b"other"))
    assert await read(one, "k") == b"one"
    assert [found.key async for found in other.list("")] == ["k"]
