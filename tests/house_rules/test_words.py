"""Plain English: words that we avoid in prose, and what to write instead.

Prose is comments, docstrings and every other string of Python (log events and error messages among them), and all of a
document but its code. Names in code are not looked at.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.house_rules.tree import ROOT, texts, tracked_files

# What we avoid -> what to write. A pattern stands for the meaning that it names, so the noun "answers" is free.
WORDS = {
    r"\banswers(?= (?:the|its|their|what|which|whether|how|when|an?|it|\d+|None|True|False)\b|$)": "returns",
    r"(?<!right )(?<!straight )(?<![a-z])away\b": "unavailable, down",
    r"\bmust not know\b": "does not depend on, does not use",
    r"\btells?\b": "reports, says, shows",
    r"\bkeepers?\b": "background uploads; the parent process",
    r"(?<!\")\bshel(?:f|ves)\b(?!\")": "disk cache",
    r"\bdoors?\b": "middleware; interface",
    r"\bbur(?:y|ies|ied)\b": "tombstone, mark as deleted",
    r"\bcensus\b": "counts",
    r"\bexchanges?\b": "request",
    r"\bintakes?\b": "parse, parser",
    r"\bthinks? of\b": "decides, expects",
    r"\b(?:that|who|which) (?:is|are) not there\b": "missing",
    r"\bmistakes? of (?:ours|the server)\b": "bug, error of ours",
    r"\bmend(?:s|ed|ing)?\b": "correct, fix, repair",
    r"\banew\b": "again",
    r"\bfor ever\b": "permanently, without end",
    r"\bgo(?:es|ing)? on\b": "continue",
    r"\b(?:speaks?|spoken) to\b": "call, connect to",
    r"\bstands? (?:in|at|twice|behind|among|around|nowhere)\b": "is in, is at",
    r"\baffairs?\b": "responsibility, business of",
    r"\b(?:must have )?moved out\b": "removed first",
    r"\bwere silent\b|\bat fault\b": "did not respond; caused by",
}
PATTERNS = {re.compile(pattern, re.IGNORECASE): instead for pattern, instead in WORDS.items()}

# Files whose words are somebody else's, such as OpenAI's on the wire.
EXEMPT = {
    "examples/demo/phrases.py",  # what customers of a workshop write
    "examples/demo/order_phrases.py",  # and what they order
    "docs/soak.txt",  # a run's output, kept as it was printed
    "workers/data/general_text.txt",  # passages of old books
    "tests/given/templates/families.py",  # a tool of a conversation looks at a shelf
    "tests/house_rules/test_words.py",  # the words themselves
}
CODE_AND_DOCUMENTS = ("service", "workers", "clients", "tests", "benchmarks", "docs", "examples", "deploy", "openapi")
CHECKED = (*CODE_AND_DOCUMENTS, "README.md", "AGENTS.md", "CHANGELOG.md", "Makefile")
DOCUMENTS = {"", ".html", ".js", ".md", ".toml", ".yaml", ".sh", ".mjs", ".example", ".txt"}
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


def found(path: Path, text: str) -> list[str]:
    """Each avoided word in the prose of a file: where, which, and what to write."""
    return [
        f"{path}:{line + prose[: match.start()].count(chr(10))}: '{match[0]}' -> {instead}"
        for line, prose in prose_of(path, text)
        for pattern, instead in PATTERNS.items()
        for match in pattern.finditer(prose)
    ]


def prose_of(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """The pieces of prose of a file, each with the line that it begins at."""
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.lineno, node.value
        for line, code in enumerate(text.splitlines(), start=1):
            if "#" in code:  # a comment, or what a string has after one: read twice, and a tokenizer takes seconds
                yield line, code.partition("#")[2]
    elif path.suffix in DOCUMENTS:
        yield 1, CODE.sub(lambda code: "\n" * code[0].count("\n"), text)


def checked() -> list[Path]:
    """The tracked files whose words count."""
    relative = [(path, path.relative_to(ROOT)) for path in tracked_files()]
    return [path for path, name in relative if name.parts[0] in CHECKED and name.as_posix() not in EXEMPT]


def test_no_prose_has_a_word_that_we_avoid():
    assert [hit for path, text in texts(checked()) for hit in found(path.relative_to(ROOT), text)] == []


def test_every_exempt_file_exists():
    assert [name for name in EXEMPT if not (ROOT / name).is_file()] == []


def test_this_rule_can_be_broken():
    module = (
        '"""Counts; answers how many."""\n\nlog.warning("bell.away")  # must not know keys\n'
        'raise ValueError(f"{name} is\\naway")\nanswers = away = door\n'
    )
    assert [hit.split("'")[1] for hit in found(Path("rate.py"), module)] == ["answers", "away", "away", "must not know"]
    page = "The engine is away.\n\n```\nanswers 200 away\n```\n`keeper`\nputs it right away: both answers.\n"
    assert found(Path("page.md"), page) == ["page.md:1: 'away' -> unavailable, down"]
    assert found(Path("weights.safetensors"), "away") == []
