"""Early stopping, the best step and the forgetting report of a job, through HTTP: what is echoed, what is refused."""

from typing import Any

import httpx
import pytest

from tests.given.files_by_http import upload
from tests.given.jobs_by_http import JOBS, create

OWN = {"early_stopping", "checkpoint_selection", "forgetting_report"}


async def test_what_a_job_asked_for_is_echoed_with_its_defaults(client: httpx.AsyncClient) -> None:
    file = (await upload(client))["id"]
    job = await create(
        client,
        validation_file=file,
        early_stopping={"patience": 2},
        checkpoint_selection="best",
        forgetting_report=True,
    )
    found = (await client.get(f"{JOBS}/{job['id']}")).json()
    assert {name: found[name] for name in OWN} == {
        "early_stopping": {"patience": 2, "min_delta": 0.0, "metric": "full_valid_loss"},
        "checkpoint_selection": "best",
        "forgetting_report": True,
    }


async def test_a_job_that_asks_for_nothing_has_no_such_fields(client: httpx.AsyncClient) -> None:
    assert not OWN & (await create(client)).keys()
    assert not OWN & (await create(client, early_stopping=None, forgetting_report=False)).keys()
    assert (await create(client, checkpoint_selection="last"))["checkpoint_selection"] == "last"


@pytest.mark.parametrize("fields", [{"early_stopping": {}}, {"checkpoint_selection": "best"}])
async def test_without_a_validation_file_nothing_can_be_decided(
    client: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    error = await refused(client, **fields)
    assert (error["param"], error["code"]) == ("validation_file", "missing_required_parameter")
    assert next(iter(fields)) in error["message"]


async def test_a_metric_that_the_method_does_not_have_is_refused_with_those_that_it_has(
    client: httpx.AsyncClient,
) -> None:
    file = (await upload(client))["id"]
    given = {"validation_file": file, "early_stopping": {"metric": "full_valid_accuracy"}}
    error = await refused(client, **given)
    assert error["param"] == "early_stopping.metric"
    assert "full_valid_loss, full_valid_mean_token_accuracy." in error["message"]
    assert (await create(client, **given, method={"type": "dpo"}))["early_stopping"]["metric"] == "full_valid_accuracy"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"early_stopping": {"patience": 0}}, "early_stopping.patience"),
        ({"early_stopping": {"min_delta": -1}}, "early_stopping.min_delta"),
        ({"early_stopping": {"patience": 1, "mode": "min"}}, "early_stopping.mode"),
        ({"checkpoint_selection": "first"}, "checkpoint_selection"),
        ({"forgetting_report": "yes"}, "forgetting_report"),
    ],
)
async def test_what_is_no_setting_is_refused_by_its_name(
    client: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    assert (await refused(client, **fields))["param"] == param


async def test_other_trainers_names_are_refused_with_the_spelling_here(client: httpx.AsyncClient) -> None:
    error = await refused(client, hyperparameters={"early_stopping_patience": 3})
    assert '"early_stopping": {"patience": 1' in error["message"]
    assert '"checkpoint_selection": "best"' in (await refused(client, load_best_model_at_end=True))["message"]
    assert "in the job itself" in (await refused(client, hyperparameters={"early_stopping": {}}))["message"]


async def refused(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    file = (await upload(client))["id"]
    response = await client.post(JOBS, json={"model": "luthier-tiny", "training_file": file, **fields})
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    return error
