"""What the documents point to exists: files, make targets, the order of imports."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from tests.house_rules.tree import ROOT, texts, tracked_files

LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
CODE = re.compile(r"`([^`\n]+)`")
MAKE = re.compile(r"\bmake ((?:[a-z][a-z-]*)(?![\w=]))")
TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)


def broken_links(documents: Iterable[Path]) -> list[str]:
    """Relative links that lead nowhere."""
    return [
        f"{path}: {link}"
        for path, text in texts(documents)
        for link in LINK.findall(text)
        if not (path.parent / link).exists()
    ]


def lost_paths(text: str, root: Path) -> list[str]:
    """Paths in the tables of a document that are not below `root`: what has a `/` or ends like a file."""
    cells = [code for line in text.splitlines() if line.startswith("|") for code in CODE.findall(line)]
    paths = [code for code in cells if re.fullmatch(r"[\w.<>*-]+(/[\w.<>*-]*)+|[\w-]+\.(py|toml|md)", code)]
    return [path for path in paths if not any(root.glob(re.sub("<[^>]+>", "*", path).rstrip("/")))]


def unknown_targets(text: str, makefile: str) -> list[str]:
    """Commands `make x` in code that the Makefile does not have."""
    code = [*re.findall(r"```.*?```", text, re.DOTALL), *CODE.findall(text)]
    named = {name for part in code for name in MAKE.findall(part)}
    return sorted(named - set(TARGET.findall(makefile)))


def test_every_relative_link_leads_somewhere():
    assert broken_links(path for path in tracked_files() if path.suffix == ".md") == []


def test_tables_of_what_to_open_point_to_files_that_exist():
    for name in ("README.md", "AGENTS.md", "docs/architecture.md"):
        assert lost_paths((ROOT / name).read_text(encoding="utf-8"), ROOT) == [], name


def test_agents_has_a_table_of_what_to_open():
    assert "| I want to change | open |" in (ROOT / "AGENTS.md").read_text(encoding="utf-8")


def ladders(pyproject: str) -> list[str]:
    """The order of imports as a document has it: a program's layers, from the top."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    layers = [contract for contract in contracts if contract["type"] == "layers"]
    return [f"{one['containers'][0]}: {' > '.join(one['layers'])}" for one in layers]


def test_the_architecture_and_no_other_document_has_the_order_of_imports():
    lines = ladders((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    holding = {
        line: [path.name for path, text in texts(p for p in tracked_files() if p.suffix == ".md") if line in text]
        for line in lines
    }
    assert len(lines) == 2
    assert list(holding.values()) == [["architecture.md"]] * 2


def test_every_make_target_that_a_document_names_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "AGENTS.md", *(ROOT / "docs").rglob("*.md")]:
        assert unknown_targets(path.read_text(encoding="utf-8"), makefile) == [], path.name


def test_these_rules_can_be_broken(tmp_path: Path):
    (tmp_path / "here.md").write_text("[a](here.md) [b](gone.md#part) [c](https://x/y)", encoding="utf-8")
    assert broken_links([tmp_path / "here.md"]) == [f"{tmp_path / 'here.md'}: gone.md"]
    table = "| a loss | `tree/<name>.py`, `tree/gone.py` |\n| a word | `ft:base:x` and `/v1/files` |"
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "oak.py").touch()
    assert lost_paths(table, tmp_path) == ["tree/gone.py"]
    contract = (
        '[[tool.importlinter.contracts]]\ntype = "layers"\ncontainers = ["hall"]\nlayers = ["roof", "floor | stair"]'
    )
    assert ladders(contract) == ["hall: roof > floor | stair"]
    assert unknown_targets("`make wood`\n```\nmake glue\n```\nmake haste", "glue: wood\n") == ["wood"]
