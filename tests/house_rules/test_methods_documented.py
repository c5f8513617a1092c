"""docs/methods.md is what the registries say; every built-in method has its one file on both sides."""

import re
from collections.abc import Iterable
from pathlib import Path

from docs.make_methods import MEASURED, PAGE, render
from service.recipes.catalogue import read_catalogue
from service.recipes.objective import OBJECTIVES
from service.recipes.tuning import TUNINGS
from tests.house_rules.tree import ROOT

AT_LEAST_BETTER = 20  # points


def missing_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Names without a file of their own."""
    return [name for name in names if not (folder / f"{name}.py").is_file()]


def undescribed(*models: type[object]) -> list[str]:
    """Settings without a sentence of their own."""
    return [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in getattr(model, "model_fields", {}).items()
        if not field.description
    ]


def unnamed(text: str, names: Iterable[str]) -> list[str]:
    """Methods that the text does not name."""
    return [name for name in names if f"`{name}`" not in text]


def test_the_page_is_what_the_registries_say():
    page = PAGE.read_text(encoding="utf-8")
    assert render(page) == page, "run `python -m docs.make_methods`"


def test_every_method_has_a_section_and_every_setting_a_sentence():
    page = PAGE.read_text(encoding="utf-8")
    methods = [*TUNINGS, *OBJECTIVES]
    assert [method.name for method in methods if f"\n### `{method.name}`\n" not in page] == []
    assert undescribed(*methods) == []


def test_the_readme_names_every_method_before_it_is_tried():
    introduction = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert unnamed(introduction, [*TUNINGS.names, *OBJECTIVES.names]) == []


def test_every_tuning_has_a_row_in_the_table_of_bases():
    """Without trying it, which `tests/unit/tunings/test_compatibility.py` does."""
    page = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    missing = [name for name in TUNINGS.names if f"\n| `{name}` | " not in page]
    assert missing == [], "run `python -m docs.make_compatibility`"


def measured_scores() -> dict[str, int]:
    """Percent of the held-out questions by the names of the committed table's rows, `(the base)` among them."""
    rows = re.findall(r"^(\S.*?)  .*?(?:(\d+)%|no job succeeded)", MEASURED.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: int(score or 0) for name, score in rows}


def test_no_tuning_is_served_by_default_that_hardly_beats_the_base():
    scores = measured_scores()
    least = scores.pop("(the base)") + AT_LEAST_BETTER
    base = read_catalogue(ROOT / "service" / "bases.toml").bases["luthier-tiny"]
    assert scores and [name for name in base.serving.tunings if scores.get(name, least) < least] == []


def test_every_method_has_its_file_on_both_sides():
    for folder, registry in (("tunings", TUNINGS), ("objectives", OBJECTIVES)):
        assert missing_files(ROOT / "service" / "recipes" / folder, registry.names) == []
        assert missing_files(ROOT / "workers" / folder, registry.names) == []


def test_these_rules_can_be_broken(tmp_path: Path):
    (tmp_path / "lora.py").touch()
    assert missing_files(tmp_path, ["lora", "ia3"]) == ["ia3"]
    assert unnamed("`lora` beside `dpo`", ["lora", "ia3"]) == ["ia3"]
    changed = PAGE.read_text(encoding="utf-8").replace("| `r` | `16` |", "| `r` | `8` |")
    assert render(changed) != changed
    assert undescribed(type("Silent", (TUNINGS.default,), {"__annotations__": {"x": int}, "x": 1})) == ["Silent.x"]
