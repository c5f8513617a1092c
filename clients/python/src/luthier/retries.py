"""Which requests are sent again, and when: the rules of OpenAI's SDK.

408, 409, 429, 5xx and lost connections; the header `x-should-retry` overrules. `retry-after-ms` and `retry-after` say
when, if they ask for no more than two minutes; otherwise the delay doubles, with jitter.
"""

import email.utils
import random
import time
from collections.abc import Mapping
from typing import Optional

MAX_RETRIES = 2
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 8.0
LONGEST_RETRY_AFTER_SECONDS = 120.0


def may_retry(status: int, headers: Mapping[str, str]) -> bool:
    """Whether a response with this status asks for another try."""
    asked = headers.get("x-should-retry")
    if asked in ("true", "false"):
        return asked == "true"
    return status in (408, 409, 429) or status >= 500


def delay_seconds(failures: int, headers: Optional[Mapping[str, str]] = None) -> float:
    """How long to wait after the given number of failures (1 or more)."""
    asked = _retry_after(headers or {})
    if asked is not None and 0 < asked <= LONGEST_RETRY_AFTER_SECONDS:
        return asked
    doubled: float = min(FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 10), LONGEST_DELAY_SECONDS)
    return doubled * (1 - 0.25 * random.random())


def _retry_after(headers: Mapping[str, str]) -> Optional[float]:
    """Seconds, from milliseconds, seconds or a date."""
    try:
        return float(headers["retry-after-ms"]) / 1000
    except (KeyError, ValueError):
        text = headers.get("retry-after", "")
    try:
        return float(text)
    except ValueError:
        date = email.utils.parsedate_tz(text)
    return None if date is None else email.utils.mktime_tz(date) - time.time()
