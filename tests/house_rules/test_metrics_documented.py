"""docs/operating/ names the metrics of API and engines as the code exports them, and leaves none out."""

import ast
import re
from collections.abc import Iterable, Iterator

from tests.house_rules.tree import ROOT, python_files

NAME = re.compile(r"\bluthier_[a-z0-9_]+")
OF_HISTOGRAMS = re.compile(r"_(bucket|count|sum)$")


def exported(sources: Iterable[str]) -> Iterator[str]:
    """The names of metrics in modules that define metrics of Prometheus."""
    for source in sources:
        if "prometheus_client" in source:
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value):
                    yield node.value


def named(page: str) -> set[str]:
    """The metrics that a page names, in tables and in expressions."""
    return {OF_HISTOGRAMS.sub("", name) for name in NAME.findall(page)}


def ours() -> set[str]:
    return set(exported(path.read_text(encoding="utf-8") for path in python_files("service", "workers")))


def pages() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "operating").glob("*.md"))


def test_every_metric_that_the_pages_name_exists():
    assert named(pages()) - ours() == set()


def test_every_metric_is_on_one_of_the_pages():
    assert ours() - named(pages()) == set()


def test_these_rules_can_be_broken():
    speaks = 'from prometheus_client import Counter\nCounter("luthier_a_total", "luthier_b is not one", f"luthier_{c}")'
    assert list(exported([speaks, 'options("luthier_writes")'])) == ["luthier_a_total"]
    assert named("`rate(luthier_d_bucket[5m])` and `luthier_a_total{x=1}`, not LUTHIER_PORT") == {
        "luthier_d", "luthier_a_total",
    }  # fmt: skip
