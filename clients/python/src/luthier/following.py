"""What waiting for a job is, for both clients: when it has ended, how long to read, how often to connect again."""

import time
from dataclasses import dataclass, field
from typing import Optional

from luthier.errors import APIConnectionError, APIError, APIStatusError, WaitTimeoutError
from luthier.generated.models import EventObject, JobObject
from luthier.retries import delay_seconds

ENDED = frozenset({"succeeded", "failed", "cancelled"})
SILENCE_SECONDS = 60.0  # the service writes a heartbeat every 15 seconds
RECONNECTIONS = 10  # without an event between them: about a minute


def has_ended(job: JobObject) -> bool:
    return job.status in ENDED


@dataclass
class Follower:
    """How far the events of a job were read, and what is left of patience and time."""

    job_id: str
    timeout_seconds: Optional[float]
    last_event_id: Optional[str] = None
    _failures: int = 0
    _began: float = field(default_factory=time.monotonic)

    def read_seconds(self) -> float:
        """How long one read may take. Raises WaitTimeoutError when the caller's time is over."""
        if self.timeout_seconds is None:
            return SILENCE_SECONDS
        left = self.timeout_seconds - (time.monotonic() - self._began)
        if left <= 0:
            raise WaitTimeoutError(
                f"Job {self.job_id} has not ended within {self.timeout_seconds:g} seconds. It continues; wait again."
            )
        return min(left, SILENCE_SECONDS)

    def seen(self, event: EventObject) -> None:
        self.last_event_id = event.id
        self._failures = 0

    def pause_seconds(self, error: APIError) -> float:
        """How long to wait before the events are followed again. Raises `error` if that is of no use."""
        lost = isinstance(error, APIConnectionError) or (isinstance(error, APIStatusError) and error.status_code >= 500)
        streamed = not isinstance(error, APIStatusError) and type(error) is APIError  # the stream said that it failed
        self._failures += 1
        if not (lost or streamed) or self._failures > RECONNECTIONS:
            raise error
        pause = delay_seconds(self._failures)
        return pause if self.timeout_seconds is None else min(pause, self.read_seconds())
