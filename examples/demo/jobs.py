"""A fine-tuning job from the client's side: upload, follow.

Knows the official `openai` SDK; the stream of events is Luthier's own, the rest works with any service of that API.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from openai import APIError, APIStatusError, OpenAI, Stream
from openai.types.fine_tuning import FineTuningJobEvent

ENDED = ("succeeded", "failed", "cancelled")
PAUSE_SECONDS = 1.0
GIVE_UP_SECONDS = 60.0  # without a connection


def upload(client: OpenAI, path: Path) -> str:
    """The id of the uploaded file."""
    with path.open("rb") as stream:
        return client.files.create(file=stream, purpose="fine-tune").id


def follow(client: OpenAI, job_id: str) -> Iterator[FineTuningJobEvent]:
    """Every event of the job once, oldest first, as they come; ends with the job.

    After a broken connection it continues behind the last event. Raises the SDK's errors if that keeps failing.
    """
    last_id, lost_at = None, None
    while True:
        try:
            status = client.fine_tuning.jobs.retrieve(job_id).status  # before the events: the last ones come with it
            for event in _stream(client, job_id, last_id):
                last_id, lost_at = event.id, None
                yield event
            if status in ENDED:
                return
        except APIError as error:
            refused = isinstance(error, APIStatusError) and error.status_code < 500
            lost_at = lost_at or time.monotonic()
            if refused or time.monotonic() - lost_at > GIVE_UP_SECONDS:
                raise
            time.sleep(PAUSE_SECONDS)


def _stream(client: OpenAI, job_id: str, last_id: str | None) -> Stream[FineTuningJobEvent]:
    return client.get(
        f"/fine_tuning/jobs/{job_id}/events",
        cast_to=FineTuningJobEvent,
        stream=True,
        stream_cls=Stream[FineTuningJobEvent],
        options={"params": {"stream": True}, "headers": {"Last-Event-ID": last_id} if last_id else {}},
    )
