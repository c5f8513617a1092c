"""How tests stand to each other and to the database: what several need is built in tests/given, and SQL stays there."""

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tests.house_rules.tree import ROOT, python_files, texts

OF_THE_DATABASE = (  # tests whose subject it is, and what serves it to others
    "tests/unit/db/",
    "tests/contract/test_schema.py",
    "tests/contract/test_concurrency.py",
    "tests/faults/test_postgres.py",
    "tests/servers/",
    "tests/transaction_rules.py",
)
BUILDERS = "tests/given/"


@cache
def imported(text: str) -> list[tuple[int, str]]:
    """Line and full name of every module, or thing of a module, that a text imports."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            found += ((node.lineno, f"{node.module}.{name.name}") for name in node.names)
    return found


def from_tests(files: Iterable[Path]) -> list[str]:
    """Imports from a `test_*.py`: what two tests need belongs into tests/given, named by what it builds."""
    return [
        f"{path}:{line}: {name}"
        for path, text in texts(files)
        for line, name in imported(text)
        if name.startswith("tests.") and ".test_" in name
    ]


def of_the_database(files: Iterable[Path]) -> list[str]:
    """Imports of `service.db`: other tests go through operations or HTTP."""
    return [
        f"{path}:{line}: {name}"
        for path, text in texts(files)
        for line, name in imported(text)
        if name.startswith("service.db.")
    ]


def unexplained(files: Iterable[Path]) -> list[str]:
    """Builders that use the database and whose docstring does not say so, and why."""
    return [
        str(path)
        for path, text in texts(files)
        if of_the_database([path]) and "database" not in (ast.get_docstring(ast.parse(text)) or "")
    ]


def _below(path: Path, *places: str) -> bool:
    return str(path.relative_to(ROOT)).startswith(places)


def test_no_test_imports_from_another_test():
    assert from_tests(python_files("tests")) == []


def test_only_tests_of_the_database_import_it():
    others = [path for path in python_files("tests") if not _below(path, *OF_THE_DATABASE, BUILDERS)]
    assert of_the_database(others) == []


def test_a_builder_that_uses_the_database_says_why():
    assert unexplained(path for path in python_files("tests") if _below(path, BUILDERS)) == []


def test_every_place_that_may_import_the_database_is_there():
    assert [place for place in (*OF_THE_DATABASE, BUILDERS) if not (ROOT / place).exists()] == []


def test_these_rules_can_be_broken(tmp_path: Path):
    bad = tmp_path / "bad.py"
    bad.write_text("from tests.unit.api.test_jobs import create\nfrom service.db import jobs\n", encoding="utf-8")
    late = tmp_path / "late.py"
    late.write_text(
        "def given():\n    import tests.unit.test_jobs.rows\n    from service.db.jobs import add\n", encoding="utf-8"
    )
    good = tmp_path / "good.py"
    good.write_text(
        '"""Rows."""\nfrom tests.given.rows import a_test\nfrom service.operations import jobs\n', encoding="utf-8"
    )
    for rule in (from_tests, of_the_database, unexplained):
        assert len(rule([bad])) == len(rule([late])) == 1, rule.__name__
        assert rule([good]) == [], rule.__name__
    bad.write_text('"""Jobs in the database."""\n' + bad.read_text(encoding="utf-8"), encoding="utf-8")
    assert unexplained([bad]) == []
