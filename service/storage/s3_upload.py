"""One object sent to S3: in one request when it is small, else in parts, of which few are in memory.

Nothing is visible before the last request. What a failed or cancelled upload has begun is taken back beside the
caller's way; what cannot be, because the store is unavailable, is left to `remove_unfinished`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from concurrent.futures import Future
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from service.storage.base import ObjectExists, ObjectMissing, StorageError
from service.storage.s3_requests import S3Requests, reason_of

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef, UploadPartOutputTypeDef

PARALLEL_PARTS = 2
PARTS_LIMIT = 10_000


class S3Upload:
    """`send` once; after anything but success, `take_back` once."""

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
