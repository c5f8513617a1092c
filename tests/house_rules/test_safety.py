"""What must be nowhere: formats that run code when they are read, other people's code, paths of one machine."""

import re
from collections.abc import Iterable
from pathlib import Path

from tests.house_rules.tree import ROOT, python_files, texts, tracked_files

UNSAFE_FORMATS = re.compile(r"\b(?:c?pickle|cloudpickle|dill|joblib|shelve|torch\.load|torch\.save)\b")
FOREIGN_CODE = re.compile(r"trust_remote_code\W{1,4}true\b", re.IGNORECASE)
HOME_FOLDERS = re.compile(r"(?<![\w.:/-])/(?:home|Users|root|work|workspace)/[\w.-]+")


def matches(pattern: re.Pattern[str], files: Iterable[Path]) -> list[str]:
    """Where the pattern stands: file, line, what was found."""
    return [
        f"{path}:{number}: {found[0]}"
        for path, text in texts(files)
        for number, line in enumerate(text.splitlines(), start=1)
        if (found := pattern.search(line))
    ]


def test_workers_name_no_format_that_runs_code_when_it_is_read():
    assert matches(UNSAFE_FORMATS, python_files("workers")) == []


def test_a_base_never_brings_its_own_code():
    code = [path for path in tracked_files() if path.suffix != ".md"]
    assert matches(FOREIGN_CODE, code) == []


def test_no_tracked_file_names_a_folder_of_one_machine():
    assert matches(HOME_FOLDERS, tracked_files()) == []
    assert matches(re.compile(re.escape(str(ROOT))), tracked_files()) == []


def test_these_rules_can_be_broken(tmp_path: Path):
    bad = tmp_path / "bad.py"
    bad.write_text(f"import pickle\nload(trust_remote_code{'='}True)\nopen('/{'home'}/ada/rows')\n", encoding="utf-8")
    good = tmp_path / "good.py"
    good.write_text("unpickled = trust_remote_code = False\nget('http://x/home/rows')\n", encoding="utf-8")
    for pattern in (UNSAFE_FORMATS, FOREIGN_CODE, HOME_FOLDERS):
        assert len(matches(pattern, [bad])) == 1, pattern.pattern
        assert matches(pattern, [good]) == [], pattern.pattern
