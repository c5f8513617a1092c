"""What OpenAI's API means and other servers get wrong in silence, where no room of its own tests it."""

from typing import Any, get_args

import httpx
import pytest
from openai.types.fine_tuning import FineTuningJob

from service.api.schemas.job_objects import JobObject
from tests.given.jobs_by_http import create

ALL_AUTO = dict.fromkeys(["n_epochs", "batch_size", "learning_rate_multiplier"], "auto")


@pytest.mark.parametrize(
    "asked",
    [
        {"hyperparameters": ALL_AUTO},
        {"method": {"type": "supervised", "supervised": {"hyperparameters": ALL_AUTO}}},
        {"method": {"type": "dpo", "dpo": {"hyperparameters": {**ALL_AUTO, "beta": "auto"}}}},
        {"hyperparameters": {"n_epochs": "auto"}, "method": {"type": "supervised", "supervised": {}}},
    ],
)
async def test_auto_is_accepted_everywhere(client: httpx.AsyncClient, asked: dict[str, Any]) -> None:
    job = await create(client, **asked)
    assert job["hyperparameters"] == ALL_AUTO
    of_method = job["method"][job["method"]["type"]]["hyperparameters"]
    asked_of_method = asked.get("method", {}).get(job["method"]["type"], {}).get("hyperparameters", ALL_AUTO)
    assert {name: of_method[name] for name in asked_of_method} == asked_of_method
    assert len(asked_of_method) >= len(ALL_AUTO)


async def test_a_suffix_is_optional(client: httpx.AsyncClient) -> None:
    for asked in ({}, {"suffix": None}):
        assert (await create(client, **asked))["user_provided_suffix"] is None


def test_every_status_is_one_that_the_sdk_knows_or_paused() -> None:
    shown = set(get_args(JobObject.model_fields["status"].annotation))
    known = set(get_args(FineTuningJob.model_fields["status"].annotation))
    assert shown - known == {"paused"}
    assert known <= shown
