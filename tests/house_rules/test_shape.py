"""How code is cut: one idea a file, telling names, a word at the top of each, absolute imports, no stray printing."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

from tests.house_rules.tree import ROOT, python_files, texts, tracked_files

QUESTION_LINES = 400
ONE_IDEA = {  # files over it that are one idea all the same: path, and why they are
    "service/db/tables.py": "every table, once",
    "tests/clients/test_operations.py": "every operation of the SDK, once, in the order in which they can be called",
    "workers/data/render.py": "how every kind of row becomes tokens; where a turn ends is a file already",
    "workers/trainer/process/slot.py": "everything that one job is while it trains; each part of it is a file already",
}
RELATIVE = re.compile(r"\bfrom\s*\\?\s*\.")
NAMES_OF_NOTHING = {"util", "utils", "helper", "helpers", "common", "core", "manager", "managers"}
COMMAND_LINES = {
    "service/commands/cli.py",
    "service/commands/up.py",
    "workers/__main__.py",
    "workers/toy_base/make_base.py",
}


def long_files(files: Iterable[Path]) -> list[str]:
    """Files of which to ask whether they are two ideas. Two are two files; one is named in ONE_IDEA, never cut."""
    counted = ((path, len(text.splitlines())) for path, text in texts(files))
    return [f"{path}: {lines} lines" for path, lines in counted if lines > QUESTION_LINES]


def vague_names(files: Iterable[Path]) -> list[str]:
    """Files and folders whose name does not say what is in them."""
    return [str(path) for path in files if NAMES_OF_NOTHING & {part.partition(".")[0] for part in path.parts}]


def relative_imports(files: Iterable[Path]) -> list[str]:
    """Imports whose meaning depends on where they stand."""
    return [
        f"{path}:{node.lineno}"
        for path, text in texts(files)
        if RELATIVE.search(text)  # most files need not be parsed
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]


def prints(files: Iterable[Path]) -> list[str]:
    """Calls of `print`: a process's output is its log, or a protocol."""
    return [
        f"{path}:{node.lineno}"
        for path, text in texts(files)
        if "print" in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def silent_modules(files: Iterable[Path]) -> list[str]:
    """Modules that do not say what they are; an empty `__init__.py` says all it has to."""
    return [str(path) for path, text in texts(files) if text.strip() and not ast.get_docstring(ast.parse(text))]


def test_a_file_over_400_lines_has_said_why_it_is_one_idea():
    asked = [path for path in python_files() if not {"migrations", "generated"} & set(path.parts)]
    assert long_files(path for path in asked if str(path.relative_to(ROOT)) not in ONE_IDEA) == []
    assert [path for path in ONE_IDEA if not long_files([ROOT / path])] == [], "shorter now: ask no more"


def test_no_file_or_folder_has_a_name_that_says_nothing():
    assert vague_names(path.relative_to(ROOT) for path in tracked_files()) == []


def test_every_import_is_absolute():
    assert relative_imports(python_files()) == []


def test_only_command_lines_print():
    programs = python_files("service", "workers", "clients")
    quiet = [path for path in programs if str(path.relative_to(ROOT)) not in COMMAND_LINES]
    assert prints(quiet) == []


def test_every_module_of_service_workers_and_clients_says_what_it_is():
    assert silent_modules(python_files("service", "workers", "clients")) == []


def test_these_rules_can_be_broken(tmp_path: Path):
    bad = tmp_path / "utils.py"
    bad.write_text("from . import x\nprint(x)\n" + "x = 1\n" * QUESTION_LINES, encoding="utf-8")
    good = tmp_path / "tone_wood.py"
    good.write_text('"""A docstring that says print()."""\n\nfrom a.utilities import b\n', encoding="utf-8")
    for rule in (long_files, vague_names, relative_imports, prints, silent_modules):
        assert len(rule([bad])) == 1, rule.__name__
        assert rule([good]) == [], rule.__name__
