"""Jobs of the objective dpo through HTTP: what is echoed, what wins, what is refused."""

from typing import Any

import httpx
import pytest

from tests.given.files_by_http import upload
from tests.given.jobs_by_http import JOBS, create, messages


async def test_a_dpo_job_says_its_method_with_beta_and_keeps_the_top_level_hyperparameters(
    client: httpx.AsyncClient,
) -> None:
    given = {"n_epochs": 2, "beta": 0.5}
    job = await create(client, method={"type": "dpo", "dpo": {"hyperparameters": given}})
    common = {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert job["hyperparameters"] == common
    plain = {"loss_type": "sigmoid", "length_normalized": False, "label_smoothing": 0.0}
    assert job["method"] == {"type": "dpo", "dpo": {"hyperparameters": {**common, **plain, "beta": 0.5}}}
    auto = await create(client, method={"type": "dpo"})
    assert auto["method"]["dpo"]["hyperparameters"] == dict.fromkeys([*common, "beta"], "auto") | plain


async def test_a_dpo_job_takes_the_deprecated_hyperparameters_where_its_own_say_nothing(
    client: httpx.AsyncClient,
) -> None:
    method = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 3}}}
    job = await create(client, hyperparameters={"n_epochs": 2, "batch_size": 4}, method=method)
    assert job["hyperparameters"] == {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": "auto"}


async def test_supervised_settings_of_a_dpo_job_are_not_used_and_a_warning_says_so(client: httpx.AsyncClient) -> None:
    supervised = {"hyperparameters": {"n_epochs": 7}}
    job = await create(client, method={"type": "dpo", "supervised": supervised})
    assert job["hyperparameters"]["n_epochs"] == "auto"
    assert "supervised" not in job["method"]
    expected = "'method.supervised' was given, but the method's type is 'dpo': it is not used."
    assert expected in await messages(client, job["id"])


@pytest.mark.parametrize(
    ("beta", "code"),
    [
        (0, "decimal_below_min_value"),
        (2.01, "decimal_above_max_value"),
        (-0.1, "decimal_below_min_value"),
        ("high", "invalid_type"),
        (None, "invalid_type"),
    ],
)
async def test_a_beta_out_of_its_range_is_refused(client: httpx.AsyncClient, beta: Any, code: str) -> None:
    file = (await upload(client))["id"]
    method = {"type": "dpo", "dpo": {"hyperparameters": {"beta": beta}}}
    response = await client.post(JOBS, json={"model": "luthier-tiny", "training_file": file, "method": method})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "method.dpo.hyperparameters.beta")
    assert error["code"] == code, error


@pytest.mark.parametrize(
    ("given", "param", "code", "says"),
    [
        ({"loss_type": "hinge"}, "loss_type", "invalid_value", "'sigmoid' and 'ipo'"),
        ({"length_normalized": 1}, "length_normalized", "invalid_type", "boolean"),
        ({"label_smoothing": 0.5}, "label_smoothing", "decimal_above_max_value", "< 0.5"),
        ({"loss_type": "ipo", "label_smoothing": 0.1}, "label_smoothing", "invalid_value", "'ipo' leave it out"),
        ({"length_normalized": True, "beta": 11}, "beta", "decimal_above_max_value", "<= 10"),
    ],
)
async def test_settings_of_its_variants_that_do_not_fit_are_refused(
    client: httpx.AsyncClient, given: dict[str, Any], param: str, code: str, says: str
) -> None:
    file = (await upload(client))["id"]
    method = {"type": "dpo", "dpo": {"hyperparameters": given}}
    response = await client.post(JOBS, json={"model": "luthier-tiny", "training_file": file, "method": method})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, f"method.dpo.hyperparameters.{param}")
    assert error["code"] == code and says in error["message"], error


async def test_every_preference_method_says_its_settings_with_their_defaults(client: httpx.AsyncClient) -> None:
    common = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}
    own = {
        "orpo": {"beta": 0.1},
        "simpo": {"beta": 2.0, "gamma": 1.0},
        "kto": {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
    }
    for name, settings in own.items():
        job = await create(client, method={"type": name})
        assert job["method"] == {"type": name, name: {"hyperparameters": common | settings}}
