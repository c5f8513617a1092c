"""The form of a new job: every method's settings, the request that it stands for, and what the API says about it."""

import json
import shlex
from html import unescape

import httpx
import pytest
from markupsafe import escape
from openai import OpenAI

from service.dashboard.web import job_form
from service.installation.context import Context
from service.operations import jobs
from service.operations.keys import Caller
from service.recipes.objective import OBJECTIVES
from service.recipes.tuning import TUNINGS
from tests.given.visitors import csrf_of
from tests.given.workshop import furnish, stored

PLAIN = {"model": "luthier-tiny", "training_file": "file-1", "objective": "supervised", "tuning": "lora"}


def test_every_setting_of_every_method_has_an_input_that_says_what_it_is() -> None:
    for objective in OBJECTIVES:
        names = {field.label for field in job_form.method_fields(objective.name, {})}
        assert set(objective.model_fields) <= names and "n_epochs" in names
    for tuning in TUNINGS:
        fields = job_form.tuning_fields(tuning.name, {})
        assert [field.label for field in fields] == list(tuning.model_fields)
        assert all(field.about for field in fields), tuning.name


def test_a_form_that_was_left_alone_is_the_smallest_request() -> None:
    for objective in OBJECTIVES.names:
        for tuning in TUNINGS.names:
            fields = [*job_form.method_fields(objective, {}), *job_form.tuning_fields(tuning, {})]
            left = {field.name: field.value for field in fields if field.kind != "switch"}
            body = job_form.body_of({**PLAIN, "objective": objective, "tuning": tuning, **left})
            assert body.get("method", {"type": "supervised"}) == {"type": objective}
            assert body.get("tuning", {"type": "lora"}) == {"type": tuning}
            job_form.checked(body)


def test_what_was_filled_in_has_the_types_that_the_api_takes() -> None:
    body = job_form.body_of(
        PLAIN
        | {"method.n_epochs": "4", "method.learning_rate_multiplier": "0.5", "seed": "7", "patience": "2"}
        | {"tuning.r": "8", "tuning.use_dora": "on", "tuning.target_modules": "q_proj, v_proj"}
        | {"checkpoint_selection": "best"}
    )
    assert body["method"]["supervised"]["hyperparameters"] == {"n_epochs": 4, "learning_rate_multiplier": 0.5}
    assert body["tuning"]["lora"] == {"r": 8, "use_dora": True, "target_modules": ["q_proj", "v_proj"]}
    assert (body["seed"], body["early_stopping"], body["checkpoint_selection"]) == (7, {"patience": 2}, "best")
    job_form.checked(body)


def test_the_request_is_shown_as_curl_and_python_that_send_it() -> None:
    body = job_form.body_of(PLAIN | {"suffix": "it's", "tuning.r": "8"})
    words = shlex.split(job_form.as_curl(body, "http://luthier/v1").replace("\\\n", " "))
    assert words[:2] == ["curl", "http://luthier/v1/fine_tuning/jobs"]
    assert json.loads(words[words.index("-d") + 1]) == body
    sent: list[object] = []

    def receive(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, json={"id": "ftjob-1"})

    code = job_form.as_python(body, "http://luthier/v1").replace("from openai import OpenAI\n", "")
    with httpx.Client(transport=httpx.MockTransport(receive)) as transport:

        def client(**options: str) -> OpenAI:
            return OpenAI(base_url=options["base_url"], api_key="key", http_client=transport)

        exec(
            code.replace("import os", "").replace('os.environ["LUTHIER_API_KEY"]', '"key"').replace("print", "str"),
            {"OpenAI": client},
        )
    assert sent == [body]


async def test_the_request_beside_the_form_is_what_the_form_shows(member: httpx.AsyncClient, key: str) -> None:
    text = (await member.get("/ui/jobs/new")).text
    assert "&#34;model&#34;: &#34;luthier-tiny&#34;" in text.partition('id="request-curl"')[2].partition("</pre>")[0]


async def test_files_of_one_name_are_told_apart_and_invalid_ones_say_so(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    right = await stored(ctx, caller, "a<b.jsonl", b"{}\n")
    wrong = await stored(ctx, caller, "a<b.jsonl", b"{}\nnot JSON\n")
    text = (await member.get(f"/ui/jobs/new?file={wrong}")).text.partition('id="training_file"')[2]
    choices = text.partition("</select>")[0]
    assert f'<option value="{right}">a&lt;b.jsonl · just now</option>' in choices
    assert f'<option value="{wrong}" selected>a&lt;b.jsonl · just now · has invalid lines</option>' in choices


async def test_a_job_is_created_from_the_form(member: httpx.AsyncClient, ctx: Context, caller: Caller) -> None:
    file = await stored(ctx, caller, "a.jsonl", b"{}")
    form = PLAIN | {"training_file": file, "csrf": await csrf_of(member), "tuning.r": "4", "suffix": "mine"}
    response = await member.post("/ui/jobs", data=form)
    assert response.status_code == 303
    made = await jobs.retrieve(ctx, caller, response.headers["location"].rpartition("/")[2])
    assert (made.job.tuning["lora"]["r"], made.job.suffix) == (4, "mine")


async def test_what_the_api_refuses_is_said_on_the_form_and_what_was_filled_in_stays(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    file = await stored(ctx, caller, "a.jsonl", b"{}")
    form = PLAIN | {"training_file": file, "csrf": await csrf_of(member), "suffix": "mine"}
    response = await member.post("/ui/jobs", data={**form, "tuning.r": "many"})
    assert response.status_code == 400
    assert "expected an integer" in response.text and 'value="mine"' in response.text
    wrong = response.text.partition('id="tuning.r"')[2].partition(">")[0]
    assert 'aria-invalid="true"' in wrong and 'value="many"' in wrong


HOSTILE = (
    "[" * 20_000,
    '{"a":' * 20_000,
    '{"a": ' + "[" * 150 + "]" * 150 + "}",
    '{"\\ud800": 3}',
    '{"a": 1e999}',
    "[1]",
)


@pytest.mark.parametrize("name", ["tuning.rank_pattern", "seed", "method.n_epochs", "tuning.alpha"])
async def test_anything_may_be_typed_into_the_form_and_nothing_that_was_is_lost(
    member: httpx.AsyncClient, ctx: Context, caller: Caller, name: str
) -> None:
    file = await stored(ctx, caller, "a.jsonl", b"{}")
    form = PLAIN | {"training_file": file, "csrf": await csrf_of(member), "suffix": "mine"}
    for text in (*HOSTILE, "nan", "1e999", "9" * 5000):
        filled = form | {name: text}
        shown = await member.post("/ui/jobs/new/request", data=filled)
        assert shown.status_code == 200, text[:20]
        curl = unescape(shown.text.partition('id="request-curl" tabindex="0">')[2].partition("</pre>")[0])
        json.loads(shlex.split(curl.replace("\\\n", " "))[-1], parse_constant=pytest.fail)
        refused = await member.post("/ui/jobs", data=filled)
        assert refused.status_code == 400 and 'value="mine"' in refused.text, text[:20]
        wrong = refused.text.partition(f'id="{name}"')[2].partition(">")[0]
        assert 'aria-invalid="true"' in wrong and escape(text) in refused.text, text[:20]
        checked = await member.post("/ui/checks", data=filled, headers={"HX-Request": "true"})
        assert checked.status_code == 200 and 'role="alert"' in checked.text, text[:20]


def test_every_error_of_a_setting_marks_its_input() -> None:
    for param, name in (
        ("method.supervised.hyperparameters.n_epochs", "method.n_epochs"),
        ("method.classification.hyperparameters.class_weights.good", "method.class_weights"),
        ("method.type", "objective"),
        ("method.dpo", "objective"),
        ("tuning.lora.rank_pattern.a.b", "tuning.rank_pattern"),
        ("tuning.lora.target_modules[0]", "tuning.target_modules"),
        ("tuning.serve_rank", "tuning.serve_rank"),
        ("tuning.type", "tuning"),
        ("early_stopping.patience", "early_stopping"),
        ("training_file", "training_file"),
    ):
        assert job_form.input_of(param) == name, param


async def test_a_switch_stays_as_it_was_set_when_the_form_is_shown_again(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    file = await stored(ctx, caller, "a.jsonl", b"{}")
    form = PLAIN | {"training_file": file, "csrf": await csrf_of(member), "tuning.r": "many"}
    for value, shown in (("true", 'value="true" checked'), ("false", 'value="true" aria')):
        text = (await member.post("/ui/jobs", data=form | {"tuning.use_dora": value})).text
        assert f'name="tuning.use_dora" {shown}' in text


async def test_again_with_changes_begins_with_the_jobs_settings(
    member: httpx.AsyncClient, ctx: Context, caller: Caller
) -> None:
    shop = await furnish(ctx, caller)
    text = (await member.get(f"/ui/jobs/new?again={shop.succeeded}")).text
    assert 'name="tuning.r" value="8"' in text and 'value="workshop"' in text
    assert f'<option value="{shop.file}" selected>' in text
    assert "use_dora" not in text.partition('id="request-curl"')[2], "a default is no part of the request"


async def test_another_method_brings_its_own_settings(member: httpx.AsyncClient) -> None:
    form = {"csrf": await csrf_of(member), "objective": "dpo", "tuning": "prefix"}
    text = (await member.post("/ui/jobs/new/settings", data=form)).text
    assert 'name="method.beta"' in text and 'name="tuning.num_virtual_tokens"' in text and "tuning.r" not in text
    shown = (await member.post("/ui/jobs/new/request", data=form)).text
    assert "&#34;type&#34;: &#34;dpo&#34;" in shown
