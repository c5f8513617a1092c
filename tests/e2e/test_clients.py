"""The official clients on the whole journey, told only a base URL and a key: examples/clients as users run them.

The file has fewer rows than theirs.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.given.cloned import clone
from tests.given.node import installed_client
from tests.given.running_service import RunningService

pytestmark = pytest.mark.slow
SECONDS = 240

CLIENTS: dict[str, Callable[[], list[str]]] = {
    "python": lambda: [sys.executable, "examples/clients/client.py"],
    "node": installed_client,
    "curl": lambda: ["bash", "examples/clients/curl.sh"],
}


@pytest.fixture
def service(shared_service: RunningService) -> RunningService:
    return shared_service


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_goes_from_file_to_tuned_answer_and_puts_everything_away(
    service: RunningService, name: str, tmp_path: Path
) -> None:
    others = {key: value for key, value in os.environ.items() if not key.startswith("OPENAI_")}
    elsewhere = {"OPENAI_ORG_ID": "org-elsewhere", "OPENAI_PROJECT_ID": "proj_elsewhere"}  # as a user comes from OpenAI
    environment = others | elsewhere | {"OPENAI_BASE_URL": f"{service.url}/v1", "OPENAI_API_KEY": service.key}
    command, folder = CLIENTS[name](), clone(tmp_path)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    tuned = re.search(
        rf"^deleted: (ft:luthier-tiny:luthier:{name}:\w{{8}}) (ft:.*) (file-\w+) (file-\w+)$", done.stdout, re.MULTILINE
    )
    assert tuned is not None, done.stdout
    assert f"\n{tuned[1]}: " in done.stdout  # its answer
    assert "\nluthier-tiny: " in done.stdout
    assert re.search(rf"^models: .*{tuned[1]}", done.stdout, re.MULTILINE)
    assert re.search(r"^checkpoints: 36 30 24$", done.stdout, re.MULTILINE)
    assert "\nresult: step,train_loss,train_accuracy," in done.stdout
    left = service.client()
    assert not [model.id for model in left.models.list() if f":{name}:" in model.id]
    assert not {tuned[3], tuned[4]} & {file.id for file in left.files.list()}
