"""The S3 store on a bad line: every call recovers or raises StorageError, in time, and never half for whole."""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import psutil
import pytest

from service.installation.storage import open_storage
from service.settings.settings import MIB, Settings
from service.storage import ObjectStore, StorageError
from service.storage.base import CHUNK_BYTES, one_chunk, read
from tests.servers.bad_line import BadLine, Cut
from tests.servers.radosgw import Radosgw

pytestmark = pytest.mark.slow
PART_BYTES = 5 * MIB
CONTENT = random.Random(0).randbytes(3 * PART_BYTES + 224)


@asynccontextmanager
async def store_behind(line: BadLine, bucket: str, radosgw: Radosgw, attempts: int = 4) -> AsyncIterator[ObjectStore]:
    async with line.listening() as endpoint:
        settings = radosgw.settings | {"storage_endpoint_url": endpoint}
        store = open_storage(
            Settings(
                **settings,
                storage_url=bucket,
                storage_part_bytes=PART_BYTES,
                storage_read_timeout_seconds=1,
                storage_connect_timeout_seconds=1,
                storage_attempts=attempts,
            )
        )
        yield store
        await store.close()


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]


async def content_of(store: ObjectStore) -> bytes:
    return b"".join([chunk async for chunk in store.open("k")])


TROUBLES = {
    "refusals": lambda port: BadLine(port, refusals=2),
    "silence": lambda port: BadLine(port, silent=2),
    "resets-up": lambda port: BadLine(port, [Cut("up", 300_000), Cut("up", 2 * MIB)]),
    "resets-down": lambda port: BadLine(port, [Cut("down", 300_000), Cut("down", 4 * MIB), Cut("down", 10)]),
    "ends-down": lambda port: BadLine(port, [Cut("down", 300_000, reset=False), Cut("down", 5 * MIB, reset=False)]),
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_put_recovers_from_a_trouble_that_passes(radosgw: Radosgw, trouble: str) -> None:
    line, bucket = TROUBLES[trouble](radosgw.port), radosgw.new_bucket()
    async with store_behind(line, bucket, radosgw) as store:
        assert await store.put("k", chunks(CONTENT)) == len(CONTENT)
    body = radosgw.client.get_object(Bucket=bucket[5:], Key="k")["Body"]
    assert hashlib.sha256(body.read()).digest() == hashlib.sha256(CONTENT).digest()


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_download_goes_on_where_it_broke_off(radosgw: Radosgw, trouble: str) -> None:
    line, bucket = TROUBLES[trouble](radosgw.port), radosgw.new_bucket()
    radosgw.client.put_object(Bucket=bucket[5:], Key="k", Body=CONTENT)
    async with store_behind(line, bucket, radosgw) as store:
        assert await content_of(store) == CONTENT
    assert line.cuts == [] or trouble == "resets-up"
    assert line.connections > 1 or trouble == "resets-up"


@pytest.mark.parametrize("size", [1000, len(CONTENT) - 1], ids=["shorter-than-what-was-read", "shorter"])
async def test_a_download_of_what_changed_meanwhile_is_an_error(radosgw: Radosgw, size: int) -> None:
    far = Cut("down", 12 * MIB)  # from the first chunk: a reset takes what is not read yet
    line, bucket = BadLine(radosgw.port, [far]), radosgw.new_bucket()
    radosgw.client.put_object(Bucket=bucket[5:], Key="k", Body=CONTENT)
    async with store_behind(line, bucket, radosgw, attempts=2) as store, aclosing(store.open("k")) as download:
        await anext(download)
        radosgw.client.put_object(Bucket=bucket[5:], Key="k", Body=CONTENT[:size])
        with pytest.raises(StorageError, match="k: its size changed"):
            async for _ in download:
                pass


@pytest.mark.parametrize("cut", [Cut("down", 5000), Cut("down", 25, reset=False)], ids=["in-the-body", "in-the-head"])
async def test_a_download_that_never_gets_on_is_an_error(radosgw: Radosgw, cut: Cut) -> None:
    line, bucket = BadLine(radosgw.port, [cut] * 50), radosgw.new_bucket()
    radosgw.client.put_object(Bucket=bucket[5:], Key="k", Body=CONTENT)
    async with store_behind(line, bucket, radosgw, attempts=2) as store:
        with pytest.raises(StorageError, match="k"):
            await content_of(store)
    open_ends = [end for end in psutil.Process().net_connections() if end.raddr and end.raddr.port == line.port]
    assert open_ends == []


@pytest.mark.parametrize(
    "line",
    [{"refusals": 99}, {"silent": 99}, {"cuts": [Cut("up", 100_000)] * 99}],
    ids=["refusals", "silence", "resets"],
)
async def test_a_put_that_cannot_succeed_ends_in_time_and_leaves_nothing(
    radosgw: Radosgw, line: dict[str, object]
) -> None:
    bucket, started = radosgw.new_bucket(), time.monotonic()
    async with store_behind(BadLine(radosgw.port, **line), bucket, radosgw, attempts=2) as store:  # type: ignore[arg-type]
        with pytest.raises(StorageError, match="k"):
            await store.put("k", chunks(CONTENT))
        assert time.monotonic() - started < 20
    assert "Contents" not in radosgw.client.list_objects_v2(Bucket=bucket[5:])


async def test_a_server_that_hangs_ends_no_call_late_and_works_when_it_is_back(radosgw: Radosgw) -> None:
    bucket = radosgw.new_bucket()
    async with store_behind(BadLine(radosgw.port), bucket, radosgw, attempts=2) as store:
        await store.put("before", one_chunk(b"x"))
        radosgw.pause()
        try:
            async with asyncio.timeout(30):
                for call in (store.size("before"), store.put("k", one_chunk(b"y")), store.delete("before")):
                    with pytest.raises(StorageError):
                        await call
                with pytest.raises(StorageError):
                    await anext(aiter(store.open("before")))
        finally:
            radosgw.resume()
        await store.put("later", one_chunk(b"z"))  # under "k" what was given up may still be stored
        assert await read(store, "later") == b"z"
