"""Object storage in an S3-compatible bucket. Writes go through `s3_upload`, everything through `s3_requests`.

Trusts no server more than it must: sizes are compared after an upload and after a download, nothing depends on
checksums, metadata or If-Match, which servers treat differently.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Future
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from service.storage.base import CHUNK_BYTES, StorageError, StoredObject, check_key
from service.storage.s3_requests import S3Requests, length_of, reason_of
from service.storage.s3_upload import S3Upload

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

RETRY_SECONDS = 0.2
CHANGED = "its size changed while it was read"


class S3Store:
    """An `ObjectStore` under a prefix of one bucket."""

    def __init__(self, requests: S3Requests, prefix: str, part_bytes: int, attempts: int) -> None:
        self._requests = requests
        self._client = requests.client
        self._bucket = requests.bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._part_bytes = part_bytes
        self._attempts = attempts

    async def check(self) -> None:
        await self._requests.check(self._prefix)

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, replace: bool = True) -> int:
        upload = S3Upload(self._requests, key, self._name(key), self._part_bytes, replace=replace)
        try:
            return await upload.send(chunks)
        except asyncio.CancelledError:
            self._requests.clean_up(upload.take_back(finished=True))
            raise
        except BaseException:
            self._requests.clean_up(upload.take_back(finished=False))
            raise

    async def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        if end is not None and end <= start:
            await self.size(key)
            return
        position, left, failures = start, None, 0
        while True:
            response = await self._get(key, position, end)
            if response is None:
                if left:
                    raise StorageError(f"{key}: {CHANGED}")
                return
            try:
                async with aclosing(self._chunks(key, response, left)) as chunks:
                    async for chunk, rest in chunks:
                        position, left = position + len(chunk), rest
                        failures = 0
                        yield chunk
                return
            except StorageError:  # continue where it broke off: the bytes under a key never change
                failures += 1
                if failures >= self._attempts:
                    raise
                await asyncio.sleep(RETRY_SECONDS * 2**failures)

    async def size(self, key: str) -> int:
        return await self._requests.size(key, self._name(key))

    async def delete(self, key: str) -> None:
        await self._requests.send(key, self._client.delete_object, Bucket=self._bucket, Key=self._name(key))

    async def list(self, prefix: str, after: str = "") -> AsyncGenerator[StoredObject, None]:
        last, whole_prefix = self._prefix + after, self._prefix + prefix
        while True:
            page = await self._requests.send(
                prefix, self._client.list_objects_v2, Bucket=self._bucket, Prefix=whole_prefix, StartAfter=last
            )
            for found in page.get("Contents", []):
                last = found["Key"]
                yield StoredObject(last.removeprefix(self._prefix), found["Size"], found["LastModified"].timestamp())
            if not page["IsTruncated"] or not page.get("Contents"):
                return

    async def download_url(self, key: str, filename: str, life_seconds: int) -> str | None:
        disposition = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
        fields = {"Bucket": self._bucket, "Key": self._name(key), "ResponseContentDisposition": disposition}
        return await self._requests.send(
            key, self._client.generate_presigned_url, "get_object", Params=fields, ExpiresIn=life_seconds
        )

    async def remove_unfinished(self, age_seconds: float) -> int:
        begun_before, removed = datetime.now(UTC) - timedelta(seconds=age_seconds), 0
        page = await self._requests.send(
            self._prefix, self._client.list_multipart_uploads, Bucket=self._bucket, Prefix=self._prefix
        )
        for upload in page.get("Uploads", []):
            if upload["Initiated"] <= begun_before:
                name, abort = upload["Key"], self._client.abort_multipart_upload
                await self._requests.send(name, abort, Bucket=self._bucket, Key=name, UploadId=upload["UploadId"])
                removed += 1
        return removed

    async def close(self) -> None:
        await self._requests.close()

    def _name(self, key: str) -> str:
        check_key(key)
        return self._prefix + key

    async def _get(self, key: str, start: int, end: int | None) -> "GetObjectOutputTypeDef | None":
        """The response whose body begins at `start`; None when there is nothing beyond it."""
        span: Any = {} if start == 0 and end is None else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        get = self._client.get_object
        try:
            return await self._requests.send(key, get, Bucket=self._bucket, Key=self._name(key), **span)
        except StorageError as error:
            if error.__cause__ is not None and reason_of(error.__cause__) == "InvalidRange":
                return None
            raise

    async def _chunks(
        self, key: str, response: "GetObjectOutputTypeDef", expected: int | None
    ) -> AsyncGenerator[tuple[bytes, int], None]:
        """The body, to its last byte, with the number of bytes after each chunk. `expected`: its length, where known.

        Whoever stops early closes the connection, with what was still to come.
        """
        body = response["Body"]
        reading: Future[bytes] | None = None
        try:
            left = length_of(key, response)
            if expected not in (None, left):
                raise StorageError(f"{key}: {CHANGED}")
            while left > 0:
                reading = self._requests.start(body.read, min(left, CHUNK_BYTES))
                chunk = await self._requests.result(key, reading)
                if not chunk:
                    raise StorageError(f"{key}: {left} bytes are missing at the end")
                left -= len(chunk)
                yield chunk, left
        finally:
            if reading is None or reading.done():
                body.close()
            else:  # a thread is reading: closing would wait for it
                reading.add_done_callback(lambda _: body.close())
