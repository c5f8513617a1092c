"""Fine-tuning jobs made and read through the API, as a user of it would."""

from typing import Any

import httpx

from tests.given.files_by_http import upload

JOBS = "/fine_tuning/jobs"


async def create(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    if "training_file" not in fields:
        fields["training_file"] = (await upload(client))["id"]
    response = await client.post(JOBS, json={"model": "luthier-tiny", **fields})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def messages(client: httpx.AsyncClient, id: str) -> list[str]:
    """Oldest first."""
    return [event["message"] for event in (await client.get(f"{JOBS}/{id}/events")).json()["data"]][::-1]


async def listed(client: httpx.AsyncClient, id: str) -> list[dict[str, object]]:
    """Oldest first, as the list has them."""
    found: list[dict[str, object]] = (await client.get(f"{JOBS}/{id}/events", params={"limit": 1000})).json()["data"]
    return found[::-1]
