"""docs/operating/ names the log's events as the code writes them, and leaves out no warning and no error."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache

import pytest

from tests.house_rules.tree import ROOT, python_files

HEADING = "## What each failure looks like"
EVENT = re.compile(r"`([a-z_]+\.[a-z_]+)`")
SEVERE = {"warning", "error", "exception"}


def logged(sources: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Level and event of every call of a module's `log`; a choice between two events is both."""
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[first, *_]):
                    for word in ast.walk(first):
                        if isinstance(word, ast.Constant) and isinstance(word.value, str):
                            yield level, word.value


def named(page: str) -> set[str]:
    """The events in the third column of the table of failures."""
    rows = [line.split("|") for line in page.partition(HEADING)[2].splitlines() if line.startswith("|")]
    return {event for cells in rows for event in EVENT.findall(cells[3])}


@cache
def ours() -> list[tuple[str, str]]:
    return list(logged(path.read_text(encoding="utf-8") for path in python_files("service", "workers")))


def page(name: str) -> str:
    return (ROOT / "docs" / "operating" / f"{name}.md").read_text(encoding="utf-8")


def test_every_event_in_the_table_of_failures_is_logged_somewhere():
    assert named(page("recover")) - {event for _, event in ours()} == set()


@pytest.mark.parametrize("name", ["watch", "recover"])
def test_every_event_that_a_page_names_is_logged_somewhere(name: str):
    assert set(EVENT.findall(page(name))) - {event for _, event in ours()} == set()


def test_every_warning_and_error_of_the_log_is_in_the_table_of_failures():
    assert {event for level, event in ours() if level in SEVERE} - named(page("recover")) == set()


def test_these_rules_can_be_broken():
    source = 'log.info("a.b" if x else "c.d", e="f.g")\nlog.warning("h.i")\nother.warning("j.k")'
    assert list(logged([source])) == [("info", "a.b"), ("info", "c.d"), ("warning", "h.i")]
    table = f"| x | `not.this` | `nor.this` |\n{HEADING}\n| a | `b.c` | `d.e` and `f.g x=1`, `/health` | `h.i` |"
    assert named(table) == {"d.e"}
