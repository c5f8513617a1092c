"""The pictures that benchmarks leave are shown by docs/performance.md, without anybody's hands."""

from pathlib import Path

import pytest

from benchmarks.run import BEGIN, DOCUMENT, END, with_figures


def test_pictures_that_are_there_stand_between_the_marks_and_only_once(tmp_path: Path) -> None:
    (tmp_path / "engine.svg").write_text("<svg/>", encoding="utf-8")
    document = f"before\n\n{BEGIN}\n\n![old](../benchmarks/old.svg)\n\n{END}\n\nafter\n"
    once = with_figures(document, ["engine", "growth"], tmp_path)
    assert "![engine](../benchmarks/engine.svg)" in once and "RESULTS.md" in once
    assert "growth" not in once and "old" not in once
    assert once.startswith("before\n\n") and once.endswith("\n\nafter\n")
    assert with_figures(once, ["engine", "growth"], tmp_path) == once


def test_a_document_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="figures"):
        with_figures(f"text {BEGIN}", ["engine"])
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_figures(with_figures(text, []), []) == with_figures(text, [])
