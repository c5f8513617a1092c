"""boto3's client for one bucket, in threads of its own: every request has a timeout, every error becomes one of ours.

The only file that knows botocore's exceptions. Messages name keys and reasons, never a secret.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from service.storage.base import ObjectExists, ObjectMissing, StorageError, StorageUnusable
from service.storage.config import S3Config

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef

P = ParamSpec("P")
R = TypeVar("R")
log = structlog.get_logger()

CONNECTIONS = 16
CLEANUP_SECONDS = 10.0
# ValueError: botocore passes on what its parsers raise for half a response.
FAILURES = (BotoCoreError, ClientError, HTTPError, OSError, ValueError)
MISSING = {"NoSuchKey", "404"}
EXISTS = {"PreconditionFailed", "412"}
# A store's error code for a wrong setup -> the setting to correct, and why.
UNUSABLE = {
    "NoSuchBucket": ("URL", "there is no bucket '{bucket}' at {endpoint}: make it, or name another"),
    "InvalidAccessKeyId": ("ACCESS_KEY_ID", "{endpoint} does not know this access key"),
    "SignatureDoesNotMatch": ("SECRET_ACCESS_KEY", "the secret does not belong to the access key"),
    "AccessDenied": ("ACCESS_KEY_ID", "this access key may not list the bucket '{bucket}'"),
    "NoCredentialsError": ("ACCESS_KEY_ID", "it is empty, and boto3 finds no access key in its own places either"),
    "PartialCredentialsError": ("SECRET_ACCESS_KEY", "boto3 finds half of an access key only"),
    "AuthorizationHeaderMalformed": ("REGION", "the bucket '{bucket}' is in another region"),
    "IllegalLocationConstraintException": ("REGION", "the bucket '{bucket}' is in another region"),
    "PermanentRedirect": ("REGION", "the bucket '{bucket}' is in another region"),
}
ELSEWHERE = ("ENDPOINT_URL", "{endpoint} does not respond as an S3 store does ({reason})")


class S3Requests:
    """Requests about one bucket. Belongs to one event loop at a time."""

    def __init__(self, config: S3Config, bucket: str) -> None:
        self.bucket = bucket
        self.endpoint = config.endpoint_url or "AWS"
        self.client = create_client(config)
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="s3")
        self._cleanups: set[asyncio.Task[None]] = set()

    def start(self, request: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Begins a request in a thread; whoever is cancelled meanwhile can still ask how it ended."""
        return self._threads.submit(partial(request, *args, **kwargs))

    async def result(self, key: str, request: "Future[R]") -> R:
        """The response of the request. Raises StorageError, which names `key`."""
        try:
            return await asyncio.wrap_future(request)
        except FAILURES as error:
            raise translated(key, error) from error

    async def send(self, key: str, request: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Sends a request and returns the response. Raises StorageError, which names `key`."""
        return await self.result(key, self.start(request, *args, **kwargs))

    async def size(self, key: str, name: str) -> int:
        """Bytes of the object of that name. Raises ObjectMissing, StorageError."""
        return length_of(key, await self.send(key, self.client.head_object, Bucket=self.bucket, Key=name))

    async def check(self, prefix: str) -> None:
        """Lists one object. Raises StorageUnusable, whose message begins with the setting to correct."""
        listing = self.start(self.client.list_objects_v2, Bucket=self.bucket, Prefix=prefix, MaxKeys=1)
        try:
            await asyncio.wrap_future(listing)
        except FAILURES as error:
            setting, why = UNUSABLE.get(reason := reason_of(error), ELSEWHERE)
            reason = why.format(bucket=self.bucket, endpoint=self.endpoint, reason=reason)
            raise StorageUnusable(f"LUTHIER_STORAGE_{setting}: {reason}.") from error

    def clean_up(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` in the background; what it cannot remove is left to the sweep."""
        task = asyncio.create_task(self._quietly(work))
        self._cleanups.add(task)
        task.add_done_callback(self._cleanups.discard)

    async def close(self) -> None:
        """Waits a while for cleanups, then closes threads and connections."""
        if self._cleanups:
            _, late = await asyncio.wait(self._cleanups, timeout=CLEANUP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.client.close()

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except StorageError as error:
            log.warning("storage.cleanup_failed", reason=type(error.__cause__).__name__)


def create_client(config: S3Config) -> "S3Client":
    """boto3's client. Raises ValueError for settings that cannot work."""
    endpoint, key_id = config.endpoint_url or None, config.access_key_id or None
    secret = config.secret_access_key or None
    if (key_id is None) != (secret is None):
        missing = "SECRET_ACCESS_KEY" if secret is None else "ACCESS_KEY_ID"
        raise ValueError(f"LUTHIER_STORAGE_{missing}: it is empty; give both access key and secret, or neither.")
    style = config.addressing_style
    if style == "auto":  # a bucket's name before that of a server of one's own is rarely known to the DNS
        style = "path" if endpoint else "virtual"
    # Servers other than AWS do not support checksums in trailers. (The content is signed, or goes through TLS.)
    checksums: Literal["when_required", "when_supported"] = "when_required" if endpoint else "when_supported"
    client_config = Config(
        connect_timeout=config.connect_timeout_seconds,
        read_timeout=config.read_timeout_seconds,
        retries={"total_max_attempts": config.attempts, "mode": "standard"},
        max_pool_connections=CONNECTIONS,
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        signature_version="s3v4",
        s3={"addressing_style": style},
    )
    region = config.region or ("us-east-1" if endpoint else None)
    try:
        return boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            config=client_config,
        )
    except ValueError as error:
        raise ValueError(f"LUTHIER_STORAGE_ENDPOINT_URL: {error}") from error
    except BotoCoreError as error:
        raise ValueError(f"LUTHIER_STORAGE_*: boto3 refuses the settings ({type(error).__name__}).") from error


def length_of(key: str, answer: "GetObjectOutputTypeDef | HeadObjectOutputTypeDef") -> int:
    """The length of a response's body. Raises StorageError where it is missing: half a body would look whole."""
    length: int | None = answer.get("ContentLength")
    if length is None:
        raise StorageError(f"{key}: a response without a length")
    return length


def translated(key: str, error: BaseException) -> StorageError:
    """The error as an error of the port."""
    reason = reason_of(error)
    if reason in MISSING:
        return ObjectMissing(key)
    if reason in EXISTS:
        return ObjectExists(key)
    return StorageError(f"{key}: {reason}")


def reason_of(error: BaseException) -> str:
    """S3's error code in the store's response; else the kind of failure."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "no code"))
    return type(error).__name__
