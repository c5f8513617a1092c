"""Pause and resume through HTTP; no worker runs here, so a pause stays a request."""

import httpx
import pytest

from service.domain.job import Status
from service.installation.context import Context
from tests.given.jobs_by_http import JOBS, create, messages
from tests.given.stored_jobs import move


async def test_a_pause_answers_running_because_openais_clients_know_no_paused(
    ctx: Context, client: httpx.AsyncClient
) -> None:
    id = (await create(client))["id"]
    await move(ctx, id, "validating_files", status="running", step=5, total_steps=9, seconds_per_step=1.0)
    for _ in range(2):
        response = await client.post(f"{JOBS}/{id}/pause")
        assert (response.status_code, response.json()["status"]) == (200, "running")
    assert (await messages(client, id)).count("The job will be paused after its next step") == 1
    await move(ctx, id, "running", status="paused", pause_requested_at=None)
    job = (await client.get(f"{JOBS}/{id}")).json()
    assert (job["status"], job["estimated_finish"], job["finished_at"], job["error"]) == ("paused", None, None, None)
    assert job["progress"]["seconds_remaining"] is None


@pytest.mark.parametrize("status", ["validating_files", "queued", "paused", "succeeded", "failed", "cancelled"])
async def test_only_a_running_job_can_be_paused(ctx: Context, client: httpx.AsyncClient, status: Status) -> None:
    id = (await create(client))["id"]
    await move(ctx, id, "validating_files", status=status)
    response = await client.post(f"{JOBS}/{id}/pause")
    assert response.status_code == 400
    assert response.json()["error"]["message"] == f"Job {id} cannot be paused: its status is '{status}'."


async def test_a_paused_job_is_resumed_and_a_pending_pause_is_taken_back(
    ctx: Context, client: httpx.AsyncClient
) -> None:
    id = (await create(client))["id"]
    await move(ctx, id, "validating_files", status="paused")
    job = (await client.post(f"{JOBS}/{id}/resume")).json()
    assert (job["status"], job["progress"]["queue_position"]) == ("queued", 0)
    await move(ctx, id, "queued", status="running")
    await client.post(f"{JOBS}/{id}/pause")
    for _ in range(2):
        assert (await client.post(f"{JOBS}/{id}/resume")).json()["status"] == "running"
    assert (await messages(client, id))[-2:] == ["The job will be paused after its next step", "The job was resumed"]


@pytest.mark.parametrize("status", ["validating_files", "queued", "succeeded", "failed", "cancelled"])
async def test_what_is_not_paused_cannot_be_resumed(ctx: Context, client: httpx.AsyncClient, status: Status) -> None:
    id = (await create(client))["id"]
    await move(ctx, id, "validating_files", status=status)
    response = await client.post(f"{JOBS}/{id}/resume")
    assert response.status_code == 400
    assert response.json()["error"]["message"] == f"Job {id} cannot be resumed: its status is '{status}'."
