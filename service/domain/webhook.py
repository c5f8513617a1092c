"""Webhooks: which events there are, what is sent, how it is signed, and when it is sent again.

The signature is that of Standard Webhooks 1.0.0 (github.com/standard-webhooks), which OpenAI's SDKs verify with
`client.webhooks.unwrap`. Knows no database and no network.
"""

import base64
import hmac
import json
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.domain.job import Status

JOB_EVENTS: Mapping[Status, str] = {  # what a job's new status is called
    "succeeded": "fine_tuning.job.succeeded",
    "failed": "fine_tuning.job.failed",
    "cancelled": "fine_tuning.job.cancelled",
    "paused": "fine_tuning.job.paused",
}
CHECK_COMPLETED = "fine_tuning.check.completed"  # a check has ended, however it ended
EVENT_TYPES = (*JOB_EVENTS.values(), CHECK_COMPLETED)
DELIVER = "webhook"  # the kind of work

GIVE_UP_SECONDS = 3 * 24 * 3600
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 6 * 3600.0
OLD_SECRET_SECONDS = 24 * 3600
SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32
SHOWN_CHARACTERS = 4


@dataclass(frozen=True)
class WebhookEndpoint:
    """Where a project's events are sent. `disabled_reason` says why nothing is sent; None while it is enabled."""

    id: str
    project_id: str
    name: str
    url: str
    event_types: Sequence[str]
    secret: str
    created_at: int
    updated_at: int
    old_secret: str | None = None
    old_secret_until: int | None = None
    succeeded_at: int | None = None  # the last delivery
    disabled_at: int | None = None
    disabled_reason: str | None = None

    def secrets(self, now: int) -> list[str]:
        """Those that receivers may check a signature with, the newest first."""
        old = self.old_secret if self.old_secret is not None and now < (self.old_secret_until or 0) else None
        return [self.secret] if old is None else [self.secret, old]


@dataclass(frozen=True)
class WebhookDelivery:
    """One event on its way to one endpoint: `payload` is sent as it is, `id` is its `webhook-id`, every time."""

    id: str
    endpoint_id: str
    project_id: str
    job_id: str  # or a check's id
    event_type: str
    payload: str
    created_at: int
    attempts: int = 0


def payload(event_id: str, event_type: str, subject_id: str, created_at: int) -> str:
    """The body of a request, as OpenAI's events have it."""
    data = {"id": subject_id}
    event = {"id": event_id, "object": "event", "created_at": created_at, "type": event_type, "data": data}
    return json.dumps(event, separators=(",", ":"))


def new_secret() -> str:
    """`whsec_` and the base64 of random bytes, from which receivers make the key."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def hint(secret: str) -> str:
    """Enough to recognise one's own secret."""
    return f"{SECRET_PREFIX}...{secret[-SHOWN_CHARACTERS:]}"


def signed_headers(id: str, payload: str, keys: Sequence[str], now: int) -> dict[str, str]:
    """The headers of one attempt; receivers refuse one whose timestamp is more than five minutes off.

    signature = base64(HMAC-SHA256(key, "<id>.<timestamp>.<payload>")), one for each secret.
    """
    signed = f"{id}.{now}.{payload}".encode()
    signatures = [
        base64.b64encode(hmac.digest(base64.b64decode(key.removeprefix(SECRET_PREFIX)), signed, "sha256")).decode()
        for key in keys
    ]
    return {
        "webhook-id": id,
        "webhook-timestamp": str(now),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def pause_seconds(attempts: int) -> float:
    """How long to wait after so many attempts: 5 s, 10 s, 20 s, ... up to six hours, each up to a tenth longer.

    The tenth is random: endpoints that failed together are not tried together again.
    """
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 30))
    return pause * (1 + random.random() / 10)
