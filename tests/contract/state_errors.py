"""What jobs, uploads, files and checkpoints refuse as they stand: call, code, param, part of the message: 400s."""

from service.domain.job import Status
from tests.contract.error_table import Api, Call
from tests.given.stored_jobs import move


def job_at(status: Status, verb: str) -> Call:
    """`verb` on a job that has come to `status`."""

    async def call(api: Api) -> None:
        job = await api.create()
        await move(api.ctx, job.id, "validating_files", status=status)
        await getattr(api.sdk.fine_tuning.jobs, verb)(job.id)

    return call


async def pending(api: Api, total_bytes: int = 3) -> str:
    upload = await api.sdk.uploads.create(
        filename="a.jsonl", purpose="fine-tune", bytes=total_bytes, mime_type="text/jsonl"
    )
    return upload.id


async def part(api: Api, upload: str) -> str:
    return (await api.sdk.uploads.parts.create(upload, data=b"abc")).id


async def cancelled_upload(api: Api) -> str:
    upload = await pending(api)
    await api.sdk.uploads.cancel(upload)
    return upload


async def part_after_the_end(api: Api) -> None:
    await part(api, await cancelled_upload(api))


async def cancelled_again(api: Api) -> None:
    await api.sdk.uploads.cancel(await cancelled_upload(api))


async def completed_after_the_end(api: Api) -> None:
    await api.sdk.uploads.complete(await cancelled_upload(api), part_ids=["part_1"])


async def unknown_part(api: Api) -> None:
    await api.sdk.uploads.complete(await pending(api), part_ids=["part_1"])


async def part_named_twice(api: Api) -> None:
    upload = await pending(api)
    one = await part(api, upload)
    await api.sdk.uploads.complete(upload, part_ids=[one, one])


async def other_bytes(api: Api) -> None:
    upload = await pending(api, total_bytes=4)
    await api.sdk.uploads.complete(upload, part_ids=[await part(api, upload)])


async def other_md5(api: Api) -> None:
    upload = await pending(api)
    await api.sdk.uploads.complete(upload, part_ids=[await part(api, upload)], md5="0" * 32)


async def too_large_an_upload(api: Api) -> None:
    await pending(api, total_bytes=8 * 1024**3 + 1)


async def upload_of_unknown_purpose(api: Api) -> None:
    await api.sdk.uploads.create(filename="a", purpose="x", bytes=1, mime_type="text/jsonl")  # type: ignore[arg-type]


def file_that_expires(seconds: int) -> Call:
    return lambda api: api.sdk.files.create(
        file=b"{}", purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": seconds}
    )


async def permission_for_nobody(api: Api) -> None:
    await api.sdk.post(
        "/fine_tuning/checkpoints/ft:tiny:luthier::nothing/permissions", body={"project_ids": []}, cast_to=object
    )


CANCELLED, PENDING = "its status is 'cancelled'", "its status is 'cancelled', not 'pending'"

STATES: list[tuple[Call, str | None, str | None, str]] = [
    (job_at("cancelled", "cancel"), None, None, CANCELLED),
    (job_at("succeeded", "cancel"), None, None, "its status is 'succeeded'"),
    (job_at("failed", "cancel"), None, None, "its status is 'failed'"),
    (lambda api: job_at("validating_files", "pause")(api), None, None, "cannot be paused"),
    (job_at("queued", "pause"), None, None, "its status is 'queued'"),
    (job_at("paused", "pause"), None, None, "its status is 'paused'"),
    (job_at("succeeded", "pause"), None, None, "its status is 'succeeded'"),
    (job_at("queued", "resume"), None, None, "cannot be resumed: its status is 'queued'"),
    (job_at("cancelled", "resume"), None, None, CANCELLED),
    (job_at("failed", "resume"), None, None, "its status is 'failed'"),
    (part_after_the_end, None, "upload_id", PENDING),
    (cancelled_again, None, "upload_id", PENDING),
    (completed_after_the_end, None, "upload_id", PENDING),
    (unknown_part, "invalid_value", "part_ids", "No part 'part_1'"),
    (part_named_twice, "invalid_value", "part_ids", "twice"),
    (other_bytes, "invalid_value", "part_ids", "was created for 4 bytes"),
    (other_md5, "invalid_value", "md5", "900150983cd24fb0d6963f7d28e17f72"),
    (too_large_an_upload, "integer_above_max_value", "bytes", "<= 8589934592"),
    (upload_of_unknown_purpose, None, "purpose", "'x' is not one of"),
    (file_that_expires(3599), "integer_below_min_value", "expires_after.seconds", ">= 3600"),
    (file_that_expires(2592001), "integer_above_max_value", "expires_after.seconds", "<= 2592000"),
    (permission_for_nobody, "array_below_min_length", "project_ids", "minimum length 1"),
    (lambda api: api.sdk.files.list(limit=10001), "integer_above_max_value", "limit", "<= 10000"),
    (lambda api: api.sdk.files.list(order="x"), "invalid_value", "order", "'asc' and 'desc'"),  # type: ignore[arg-type]
]
