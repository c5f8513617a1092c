"""Somebody brings methods of their own: two files under tests/, named by LUTHIER_EXTENSIONS, and no file of ours.

The made-up tuning and objective go the whole way of a built-in one, beside a LoRA job on the bundled base.
"""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from service.recipes.base import Base
from service.recipes.catalogue import read_catalogue
from service.recipes.tuning import TUNINGS
from service.settings.settings import Settings
from tests.given.journey import artifact_folder, rows, upload, weights_hash
from tests.given.running_service import ROOT, RunningService, running, wait_for_status

pytestmark = pytest.mark.slow
EXTENSIONS = "tests.given.extension.methods"


@pytest.fixture(scope="module")
def base() -> Base:
    """The bundled base, whose engine is said to serve the made-up tuning; no learning rate is given for that."""
    bundled = read_catalogue(Settings().catalogue).bases["luthier-tiny"]
    serving = bundled.serving.model_copy(update={"tunings": bundled.serving.tunings | {"greeting"}})
    return bundled.model_copy(update={"serving": serving})


@pytest.fixture(scope="module")
def service(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("service") / "data"
    with running(folder, base, extensions=EXTENSIONS, snapshot_steps=3) as service:
        yield service


@pytest.fixture(scope="module")
def client(service: RunningService) -> OpenAI:
    return service.client()


@pytest.fixture(scope="module")
def training(client: OpenAI) -> str:
    return upload(client, rows(16))


def start(client: OpenAI, training: str, **fields: Any) -> FineTuningJob:
    """A job of 8 steps."""
    loop = {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}
    body = {"method": {"type": "supervised", "supervised": loop}, "extra_body": {"tuning": {"type": "lora"}}} | fields
    return client.fine_tuning.jobs.create(model="luthier-tiny", training_file=training, seed=7, **body)


def smoothed(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "smoothed", "smoothed": {"hyperparameters": {"n_epochs": 2, "batch_size": 4, **hyperparameters}}}


@pytest.fixture(scope="module")
def jobs(client: OpenAI, training: str) -> dict[str, FineTuningJob]:
    """A job of the made-up methods beside a LoRA job, both done; and the LoRA job once more, alone."""
    greeting = {"tuning": {"type": "greeting", "greeting": {"num_words": 3}}}
    made_up = start(client, training, method=smoothed(), extra_body=greeting)
    beside = start(client, training)
    found = {name: wait_for_status(client, job.id, "succeeded") for name, job in (("mine", made_up), ("lora", beside))}
    return found | {"alone": wait_for_status(client, start(client, training).id, "succeeded")}


def test_a_job_with_them_shows_its_settings_with_auto_resolved(jobs: dict[str, FineTuningJob]) -> None:
    shown = jobs["mine"].to_dict()
    assert shown["tuning"] == {"type": "greeting", "greeting": {"num_words": 3}}
    assert shown["method"]["type"] == "smoothed"  # type: ignore[index]
    hyperparameters = shown["method"]["smoothed"]["hyperparameters"]  # type: ignore[index]
    assert hyperparameters == {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1.0, "epsilon": 0.1}


def test_the_neighbour_has_the_bits_that_it_has_alone(service: RunningService, jobs: dict[str, FineTuningJob]) -> None:
    one, other = (weights_hash(service, jobs[name].fine_tuned_model) for name in ("lora", "alone"))
    assert one == other


def test_its_artifact_and_its_result_file_are_of_its_own_kind(
    service: RunningService, client: OpenAI, jobs: dict[str, FineTuningJob]
) -> None:
    job = jobs["mine"]
    assert job.fine_tuned_model is not None
    folder = artifact_folder(service, job.fine_tuned_model)
    assert json.loads((folder / "adapter_config.json").read_text())["peft_type"] == "GREETING"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["tuning"], manifest["objective"]) == ("greeting", "smoothed")
    text = client.files.content(job.result_files[0], extra_headers={"Accept": "text/csv"}).text
    table = list(csv.DictReader(io.StringIO(text)))
    assert list(table[0]) == ["step", "train_loss", "sureness"]
    assert 0 < float(table[-1]["sureness"]) <= 1
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"])


def test_it_was_announced_and_is_served_beside_its_neighbour(client: OpenAI, jobs: dict[str, FineTuningJob]) -> None:
    events = client.fine_tuning.jobs.list_events(jobs["mine"].id, limit=100)
    assert any("log-probabilities agree" in event.message for event in events)
    question: Any = [{"role": "user", "content": "1 red?"}]
    for name in ("mine", "lora"):
        model = jobs[name].fine_tuned_model
        assert model is not None
        answer = client.chat.completions.create(model=model, messages=question, max_tokens=4, temperature=0)
        assert answer.usage is not None and answer.usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"method": smoothed(epsilon=1)}, "method.smoothed.hyperparameters.epsilon"),
        ({"method": smoothed(beta=1)}, "method.smoothed.hyperparameters.beta"),
        ({"extra_body": {"tuning": {"type": "greeting", "greeting": {"num_words": 17}}}}, "tuning.greeting.num_words"),
        ({"extra_body": {"tuning": {"type": "greeting", "lora": {}}}}, "tuning.lora"),
        ({"extra_body": {"tuning": {"type": "gretting"}}}, "tuning.type"),
    ],
)
def test_what_they_do_not_take_is_refused_by_name(
    client: OpenAI, training: str, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        start(client, training, **fields)
    assert refused.value.param == param


def test_a_file_of_rows_that_the_objective_does_not_read_fails_the_job(client: OpenAI) -> None:
    lines = [json.dumps({"prompt": f"{number}", "completion": "x"}) for number in range(12)]
    job = start(client, upload(client, "\n".join(lines).encode()), method=smoothed())
    job = wait_for_status(client, job.id, "failed")
    assert job.error is not None and job.error.param == "training_file"
    assert "the fine-tune-completion format" in (job.error.message or "")
    assert "not using 'supervised' as the training method (provided method=smoothed)" in (job.error.message or "")


def test_a_model_of_theirs_can_be_continued(client: OpenAI, training: str, jobs: dict[str, FineTuningJob]) -> None:
    parent = jobs["mine"].fine_tuned_model
    assert parent is not None
    other = {"tuning": {"type": "greeting", "greeting": {"num_words": 4}}}
    create = client.fine_tuning.jobs.create
    with pytest.raises(openai.BadRequestError) as refused:
        create(model=parent, training_file=training, extra_body=other)
    assert refused.value.param == "tuning.greeting.num_words"
    child = create(model=parent, training_file=training, method=smoothed(), seed=1)  # type: ignore[arg-type]
    assert wait_for_status(client, child.id, "succeeded").to_dict()["tuning"] == jobs["mine"].to_dict()["tuning"]


def test_documents_made_from_the_registries_have_them(service: RunningService, tmp_path: Path) -> None:
    service.run("openapi", str(tmp_path / "openapi.json"))
    schemas = json.loads((tmp_path / "openapi.json").read_text())["components"]["schemas"]
    assert schemas["Tuning"]["properties"]["type"]["enum"] == ["lora", *sorted({"greeting", *TUNINGS.names} - {"lora"})]
    assert schemas["GreetingSettings"]["properties"]["num_words"]["maximum"] == 16
    assert "smoothed" in schemas["Method"]["properties"]
    command = [sys.executable, "-m", "docs.make_methods", str(tmp_path / "methods.md")]
    environment = os.environ | {"LUTHIER_EXTENSIONS": EXTENSIONS}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=60)
    page = (tmp_path / "methods.md").read_text()
    assert "\n### `greeting`\n" in page and "\n### `smoothed`\n" in page
    assert "| `num_words` | `4` | 1 to 16 | how many words are learned |" in page
    assert "| `greeting` | `smoothed` | causal | yes | no |" in page


def test_a_module_that_cannot_be_imported_is_named() -> None:
    environment = os.environ | {"LUTHIER_EXTENSIONS": "tests.given.extension.nothing"}
    started = subprocess.run(
        [sys.executable, "-m", "service", "doctor"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert started.returncode == 1
    assert "LUTHIER_EXTENSIONS names 'tests.given.extension.nothing', which cannot be imported" in started.stdout
