"""docs/methods.md explains every recipe that a job can ask for, with each of its settings; each has its one file."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from service.recipes.objective import OBJECTIVES, Hyperparameters, ObjectiveSettings
from service.recipes.tuning import TUNINGS, TuningSettings
from tests.house_rules.tree import ROOT

PAGE = ROOT / "docs" / "methods.md"


def missing_sections(page: str, names: Iterable[str]) -> list[str]:
    """Names without a section of their own."""
    return [name for name in names if f"\n### `{name}`" not in page]


def missing_rows(page: str, settings: Mapping[str, Any]) -> list[str]:
    """Settings without a table row that begins with their name and their default."""
    return [name for name, default in settings.items() if f"\n| `{name}` | `{default}` |" not in page]


def missing_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Names without a file of their own."""
    return [name for name in names if not (folder / f"{name}.py").is_file()]


def section(page: str, name: str) -> str:
    """The text below a name's heading, to the next heading."""
    return "\n" + page.partition(f"\n### `{name}`")[2].partition("\n#")[0]


def test_every_tuning_and_objective_is_documented():
    assert missing_sections(PAGE.read_text(encoding="utf-8"), [*TUNINGS.names, *OBJECTIVES.names]) == []


@pytest.mark.parametrize("tuning", list(TUNINGS), ids=TUNINGS.names)
def test_every_setting_of_a_tuning_is_documented(tuning: type[TuningSettings]):
    assert missing_rows(section(PAGE.read_text(encoding="utf-8"), tuning.name), tuning().model_dump()) == []


@pytest.mark.parametrize("objective", list(OBJECTIVES), ids=OBJECTIVES.names)
def test_every_hyperparameter_is_documented(objective: type[ObjectiveSettings]):
    own = objective().model_dump() | (Hyperparameters().model_dump() if objective is OBJECTIVES.default else {})
    assert missing_rows(section(PAGE.read_text(encoding="utf-8"), objective.name), own) == []


def test_every_tuning_and_objective_has_its_file():
    assert missing_files(ROOT / "workers" / "tunings", TUNINGS.names) == []
    assert missing_files(ROOT / "workers" / "objectives", OBJECTIVES.names) == []


def test_these_rules_can_be_broken(tmp_path: Path):
    page = "# Methods\n\n### `lora`\n\n| `r` | `8` | rank |\n\n### `other`\n\n| `alpha` | `32` | scale |\n"
    assert missing_sections(page, ["lora", "ia3"]) == ["ia3"]
    assert missing_rows(section(page, "lora"), {"r": 8, "alpha": 32}) == ["alpha"]
    assert missing_rows(section(page, "lora"), {"r": 16}) == ["r"]
    (tmp_path / "lora.py").touch()
    assert missing_files(tmp_path, ["lora", "ia3"]) == ["ia3"]
