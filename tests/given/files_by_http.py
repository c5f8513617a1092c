"""Files uploaded through the API, and what embedded storage holds afterwards."""

from pathlib import Path
from typing import Any

import httpx

from service.domain.storage_keys import INSTALLATION
from service.settings.settings import Settings

ROWS = b'{"messages": []}\r\n' * 500


def stored(settings: Settings) -> list[Path]:
    """Every object but the one that says whose store this is."""
    paths = (settings.data_dir / "objects").rglob("*")
    return [path for path in paths if path.is_file() and path.name != INSTALLATION]


async def upload(client: httpx.AsyncClient, content: bytes = ROWS, purpose: str = "fine-tune") -> dict[str, Any]:
    response = await client.post("/files", files={"file": ("train.jsonl", content)}, data={"purpose": purpose})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found
