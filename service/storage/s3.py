"""Object storage in an S3-compatible bucket. Everything goes through `s3_requests`.

Trusts no server more than it must: sizes are compared after an upload and after a download, nothing depends on
checksums, metadata or If-Match, which servers treat differently.

An object is sent in one request when it is small, else in parts, of which few are in memory. Nothing is visible before
the last request. What a failed or cancelled upload has begun is taken back beside the caller's way; what cannot be,
because the store is unavailable, is left to `remove_unfinished`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from concurrent.futures import Future
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from service.storage.base import CHUNK_BYTES, ObjectExists, ObjectMissing, StorageError, StoredObject, check_key
from service.storage.s3_requests import S3Requests, length_of, reason_of

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef, GetObjectOutputTypeDef, UploadPartOutputTypeDef

RETRY_SECONDS = 0.2
PARALLEL_PARTS = 2
PARTS_LIMIT = 10_000
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
        upload = _Upload(self._requests, key, self._name(key), self._part_bytes, replace=replace)
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


class _Upload:
    """One object that is sent. `send` once; after anything but success, `take_back` once."""

    def __init__(self, requests: S3Requests, key: str, name: str, part_bytes: int, *, replace: bool) -> None:
        self._requests = requests
        self._client = requests.client
        self._key = key
        self._target: Any = {"Bucket": requests.bucket, "Key": name}
        self._replace = replace
        self._part_bytes = part_bytes
        self._size = 0
        self._sent: list[CompletedPartTypeDef] = []
        self._waiting: deque[Future[UploadPartOutputTypeDef]] = deque()  # parts being sent, the oldest first
        self._begun: list[Future[Any]] = []  # requests whose end a `take_back` must wait for
        self._upload_id: str | None = None
        self._last: Future[Any] | None = None  # the request that makes the object visible

    async def send(self, chunks: AsyncIterator[bytes]) -> int:
        """Stores the chunks and returns their size. Raises StorageError, ObjectExists, and what `chunks` raises."""
        async with aclosing(_parts(chunks, self._part_bytes)) as parts:
            async for part, is_last in parts:
                self._size += len(part)
                if is_last and self._upload_id is None:
                    await self._finish(self._client.put_object, Body=part)
                else:
                    await self._send_part(part)
        if self._upload_id is not None:
            await self._complete(self._upload_id)
        await self._verify()
        return self._size

    async def take_back(self, *, finished: bool) -> None:
        """Waits for what is under way, then removes its parts; with `finished`, also the object. Raises StorageError.

        The object only where nobody tries again under the same key: a late deletion would take what they stored.
        """
        await asyncio.gather(*map(asyncio.wrap_future, self._begun), return_exceptions=True)
        if self._last is not None and _succeeded(self._last):
            if finished:
                await self._requests.send(self._key, self._client.delete_object, **self._target)
        elif self._upload_id is not None:
            abort = self._client.abort_multipart_upload
            await self._requests.send(self._key, abort, UploadId=self._upload_id, **self._target)

    async def _send_part(self, part: bytearray) -> None:
        """Begins to send the part; waits while the most that may are being sent."""
        if self._upload_id is None:
            creation = self._start(self._client.create_multipart_upload)
            creation.add_done_callback(self._note_upload_id)
            await self._requests.result(self._key, creation)
        while len(self._waiting) >= PARALLEL_PARTS:
            await self._take_oldest()
        number = len(self._sent) + len(self._waiting) + 1
        if number > PARTS_LIMIT:
            raise StorageError(f"{self._key}: too large for {PARTS_LIMIT} parts of LUTHIER_STORAGE_PART_BYTES")
        upload = self._client.upload_part
        self._waiting.append(self._start(upload, UploadId=self._upload_id, PartNumber=number, Body=part))

    async def _take_oldest(self) -> None:
        answer = await self._requests.result(self._key, self._waiting.popleft())
        self._sent.append({"ETag": answer["ETag"], "PartNumber": len(self._sent) + 1})

    async def _complete(self, upload_id: str) -> None:
        while self._waiting:
            await self._take_oldest()
        complete = self._client.complete_multipart_upload
        try:
            await self._finish(complete, UploadId=upload_id, MultipartUpload={"Parts": self._sent})
        except StorageError as error:
            # The response to a first try was lost, and a second try finds nothing to complete: `_verify` decides.
            if error.__cause__ is None or reason_of(error.__cause__) != "NoSuchUpload":
                raise

    async def _finish(self, request: Any, **fields: Any) -> None:
        """Sends the request that makes the object visible. Raises ObjectExists."""
        if self._replace:
            return await self._send_last(request, fields)
        await self._refuse_to_replace()  # some servers ignore the condition; against a race only the condition helps
        try:
            await self._send_last(request, {**fields, "IfNoneMatch": "*"})
        except StorageError as error:
            if error.__cause__ is None or reason_of(error.__cause__) != "NotImplemented":
                raise
            await self._send_last(request, fields)

    async def _send_last(self, request: Any, fields: Mapping[str, Any]) -> None:
        self._last = self._start(request, **fields)
        await self._requests.result(self._key, self._last)

    async def _refuse_to_replace(self) -> None:
        with suppress(ObjectMissing):
            await self._requests.size(self._key, self._target["Key"])
            raise ObjectExists(self._key)

    async def _verify(self) -> None:
        try:
            stored = await self._requests.size(self._key, self._target["Key"])
        except ObjectMissing as error:
            raise StorageError(f"{self._key}: missing after its upload") from error
        if stored != self._size:
            raise StorageError(f"{self._key}: {stored} bytes are there, {self._size} were sent")

    def _start(self, request: Any, **fields: Any) -> "Future[Any]":
        self._begun = [begun for begun in self._begun if not begun.done()]  # a finished one holds its part in memory
        self._begun.append(self._requests.start(request, **self._target, **fields))
        return self._begun[-1]

    def _note_upload_id(self, creation: "Future[Any]") -> None:
        """Also when nobody waits for it any more."""
        if _succeeded(creation):
            self._upload_id = creation.result()["UploadId"]


async def _parts(chunks: AsyncIterator[bytes], part_bytes: int) -> AsyncGenerator[tuple[bytearray, bool], None]:
    """The chunks as parts of exactly `part_bytes`, and at last, marked so, what is left of them: at most as much."""
    gathered = bytearray()
    async for chunk in chunks:
        gathered += chunk
        while len(gathered) > part_bytes:
            rest = gathered[part_bytes:]
            del gathered[part_bytes:]
            yield gathered, False
            gathered = rest
    yield gathered, True


def _succeeded(request: "Future[Any]") -> bool:
    return request.done() and not request.cancelled() and request.exception() is None
