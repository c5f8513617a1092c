"""Every break of `make mutate` still fits the product and names a test that is there."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.house_rules.tree import ROOT

BREAKS = ROOT / "tests" / "mutations" / "breaks.toml"


def misfits(breaks: Iterable[Mapping[str, str]], root: Path) -> list[str]:
    """Breaks whose text does not stand exactly once in their file, or whose test does not exist."""
    found = []
    for one in breaks:
        if (root / one["file"]).read_text(encoding="utf-8").count(one["old"]) != 1:
            found.append(f"{one['name']}: {one['file']} does not hold its text exactly once")
        path, _, test = one["test"].partition("::")
        if not (root / path).is_file() or f"def {test}(" not in (root / path).read_text(encoding="utf-8"):
            found.append(f"{one['name']}: there is no {one['test']}")
    return found


def test_every_break_fits_the_product_and_names_its_test():
    assert misfits(tomllib.loads(BREAKS.read_text(encoding="utf-8"))["break"], ROOT) == []


def test_this_rule_can_be_broken(tmp_path: Path):
    (tmp_path / "rate.py").write_text("x = 1\nx = 1\n", encoding="utf-8")
    (tmp_path / "test_rate.py").write_text("def test_rate(): ...\n", encoding="utf-8")
    good = {"name": "good", "file": "test_rate.py", "old": "...", "test": "test_rate.py::test_rate"}
    twice = {"name": "twice", "file": "rate.py", "old": "x = 1", "test": "test_rate.py::test_rate"}
    lost = {"name": "lost", "file": "test_rate.py", "old": "...", "test": "test_rate.py::test_rates"}
    assert [found.partition(":")[0] for found in misfits([good, twice, lost], tmp_path)] == ["twice", "lost"]
