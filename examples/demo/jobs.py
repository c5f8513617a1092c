"""A fine-tuning job from the client's side: upload, follow.

Knows the official `openai` SDK, and nothing of Luthier: the same lines work with any service of that API.
"""

import time
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJobEvent

POLL_SECONDS = 0.5
ENDED = ("succeeded", "failed", "cancelled")


def upload(client: OpenAI, path: Path) -> str:
    """The id of the uploaded file."""
    with path.open("rb") as stream:
        return client.files.create(file=stream, purpose="fine-tune").id


def follow(client: OpenAI, job_id: str) -> Iterator[FineTuningJobEvent]:
    """Every event of the job, oldest first, as they come; ends with the job."""
    last_id = None
    while True:
        status = client.fine_tuning.jobs.retrieve(job_id).status  # before the events: none of a job's end is missed
        newest_first = _newer_than(client, job_id, last_id)
        yield from reversed(newest_first)
        if status in ENDED:
            return
        last_id = newest_first[0].id if newest_first else last_id
        time.sleep(POLL_SECONDS)


def _newer_than(client: OpenAI, job_id: str, last_id: str | None) -> list[FineTuningJobEvent]:
    events = client.fine_tuning.jobs.list_events(job_id, limit=100)  # iterating asks for further pages by itself
    return list(takewhile(lambda event: event.id != last_id, events))
