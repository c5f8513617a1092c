"""The secret that API, workers and engines share: an engine takes requests from no one else.

`LUTHIER_ENGINE_API_KEY`, or one that the first process of the data folder makes and keeps there. Also imported inside
vLLM's parent process; few imports.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from service.settings.settings import Settings

FILE = "engine-key"
OFF = "off"


def engine_key(settings: Settings, *, create: bool = True) -> str:
    """The key; empty where engines check none, or, without `create`, where no process has made it yet."""
    given = settings.engine_api_key.get_secret_value()
    if given:
        return "" if given == OFF else given
    path = settings.data_dir / FILE
    if create and not path.exists():
        _make(path)
    return path.read_text(encoding="ascii").strip() if path.exists() else ""


def bearer(key: str) -> dict[str, str]:
    """The header of a request to an engine."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def _make(path: Path) -> None:
    """Of several processes at once, the first one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f"{FILE}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(f"{secrets.token_urlsafe(32)}\n")
            stream.flush()
            os.fsync(stream.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(new)
    finally:
        new.unlink()
