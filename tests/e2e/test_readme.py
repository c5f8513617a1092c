"""The blocks of the README, run as they are pasted: one service, one folder, from top to bottom.

Only the port of the URL is another, and the base and the file are smaller. `make demo` and the containers are not
started: see tests/e2e/test_demo.py and tests/house_rules/test_deploy.py. A reader's own model: test_own_base.py.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.recipes.catalogue import read_catalogue
from tests.given.cloned import clone
from tests.given.node import installed_client
from tests.given.running_service import ROOT, RunningService

pytestmark = pytest.mark.slow
SECONDS = 240
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(
    r"^make demo\n$|^LUTHIER_CATALOGUE=\S+ \.venv/bin/luthierd |^make up\n$|^\.venv/bin/luthierd bases add|"
    r"docker compose|\.venv/bin/luthier tune"
)
URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Reader:
    """Somebody in a fresh clone, beside whom `make up` runs."""

    folder: Path
    service: RunningService

    def run(self, *command: str, text: str = "", keys: bool = True) -> str:
        """What the command prints, given `text`; with the two variables that the README exports, where wanted."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "LUTHIER_"))}
        exported = {"OPENAI_BASE_URL": f"{self.service.url}/v1", "OPENAI_API_KEY": self.service.key} if keys else {}
        environment = others | exported
        done = subprocess.run(
            command, cwd=self.folder, env=environment, input=text, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def reader(shared_service: RunningService, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A folder that looks like the repository after `make up`, with a small base and the file's first rows."""
    folder = clone(tmp_path_factory.mktemp("clone"))
    (folder / ".venv").symlink_to(Path(sys.prefix))
    (folder / "data").symlink_to(shared_service.folder)
    return Reader(folder, shared_service)


def blocks(*languages: str) -> list[str]:
    """The README's code of these languages, in its order, without what is shown only."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = [(language, code) for language, code in FENCE.findall(text) if language in languages]
    return [code for _, code in found if not SHOWN.search(code)]


def test_the_shell_blocks_go_from_a_file_to_a_tuned_answer_and_a_catalogue(reader: Reader) -> None:
    script = "\n".join(blocks("bash"))
    assert script.count(URL) == 1
    printed = reader.run("bash", "-euo", "pipefail", text=script.replace(URL, reader.service.url), keys=False)
    assert re.search(r"^succeeded$", printed, re.MULTILINE)
    assert re.search(r'"model":\s*"ft:luthier-tiny:luthier:workshop:\w{8}"', printed)
    assert '"content":' in printed
    assert "gpt-4o-mini-2024-07-18  stands for luthier-tiny" in printed
    named = read_catalogue(reader.folder / "bases.toml").named([])
    assert [base.source for base in named] == ["Qwen/Qwen2.5-0.5B-Instruct"]


def test_the_python_block_goes_from_a_file_to_a_tuned_answer(reader: Reader) -> None:
    (block,) = blocks("python")
    (reader.folder / "tune.py").write_text(block, encoding="utf-8")
    assert "succeeded" in reader.run(sys.executable, "tune.py").splitlines()  # perhaps at the first look


def test_the_node_block_goes_from_a_file_to_a_tuned_answer(reader: Reader) -> None:
    (block,) = blocks("js")
    (reader.folder / "tune.mjs").write_text(block, encoding="utf-8")
    (reader.folder / "node_modules").symlink_to(Path(installed_client()[1]).parent / "node_modules")
    assert "succeeded" in reader.run("node", "tune.mjs").splitlines()  # perhaps at the first look


def test_every_block_is_run_or_known_to_be_shown_only() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {language for language, _ in FENCE.findall(text)} == {"bash", "python", "js", "text"}
    assert len([code for _, code in FENCE.findall(text) if SHOWN.search(code)]) == 7
    assert text.count("```") == 2 * len(FENCE.findall(text))
