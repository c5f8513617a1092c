"""How pages write times, sizes and numbers; for people, in English, times in UTC unless a script makes them local."""

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

MINUTE, HOUR, DAY = 60, 3600, 86_400
_UNITS = ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"))


def ago(seconds: int, now: float | None = None) -> str:
    """`5 min ago` for a unix time."""
    passed = (time.time() if now is None else now) - seconds
    return "just now" if passed < MINUTE else f"{_largest(passed)} ago"


def duration(seconds: float) -> str:
    """`42 s`, `5 min` or `2 h 10 min`."""
    whole = max(0, round(seconds))
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{round(whole / MINUTE)} min"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def iso(seconds: int) -> str:
    """For `<time datetime>`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def moment(seconds: int) -> str:
    """`2026-05-04 13:05 UTC`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def size(num_bytes: int) -> str:
    """`1.2 MiB`."""
    amount = float(num_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    if num_bytes == 1:
        return "1 byte"
    return f"{num_bytes} bytes" if unit == "bytes" else f"{amount:.1f}".removesuffix(".0") + f" {unit}"


def number(value: float | None) -> str:
    """`12,345`, or four digits of what is no whole number."""
    if value is None:
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def value(given: Any) -> str:
    """A setting as its user would write it."""
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)


def shortened(text: str, characters: int = 40) -> str:
    """The text's beginning and end, where it is longer."""
    if len(text) <= characters:
        return text
    end = characters // 3
    return f"{text[: characters - end - 1]}…{text[-end:]}"


def _largest(seconds: float) -> str:
    unit, name = next((unit, name) for unit, name in _UNITS if seconds >= unit)
    return f"{int(seconds // unit)} {name}"


FILTERS: Mapping[str, Callable[..., str]] = {
    "ago": ago,
    "duration": duration,
    "iso": iso,
    "moment": moment,
    "size": size,
    "number": number,
    "value": value,
    "shortened": shortened,
}
