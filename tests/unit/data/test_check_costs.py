"""What a check of a file costs, counted: calls of the tokenizer, renderings of the template, memory."""

import gc
import json
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from service.recipes.dataset import parse_row
from service.recipes.json_lines import split_lines
from service.recipes.objective import find_objective
from tests.given.templates import tokenizer_for
from workers.data import tokenized
from workers.data.base_text import BaseText
from workers.data.check import check_file
from workers.data.encodings import Encodings
from workers.data.lines import GROUP_LINES
from workers.data.render import AnyRow, Prepared, Renderer
from workers.data.template import ChatTemplate
from workers.data.whole_rendering import WholeRendering

MEBIBYTE = 1024 * 1024
TOLD = {"role": "user", "content": "Where is order {}?"}
ROWS = {
    "supervised": [
        {"messages": [TOLD, {"role": "assistant", "content": "In Köln, {}."}]},
        {"messages": [TOLD, {"role": "assistant", "content": "{}"}, TOLD, {"role": "assistant", "content": "There."}]},
    ],
    "dpo": [
        {
            "input": {"messages": [TOLD]},
            "preferred_output": [{"role": "assistant", "content": "{}"}],
            "non_preferred_output": [{"role": "assistant", "content": "I do not know {}"}],
        }
    ],
    "text": [{"text": "A document about {}. " * 9}],
    "embedding": [{"anchor": "Where is order {}?", "positive": "Order {} is in Köln."}],
    "classification": [{"text": "{} is late", "label": "late"}, {"text": "{} is here", "label": "here"}],
}
PROMPTS = [{"prompt": "Order {}:", "completion": " sent."}]


def lines_of(rows: list[dict[str, Any]], count: int) -> list[bytes]:
    return [json.dumps(rows[number % len(rows)]).replace("{}", str(number)).encode() for number in range(count)]


def check(lines: list[bytes], objective: str, text: BaseText, folder: Path | None = None) -> tokenized.TokenizedDataset:
    return check_file(
        split_lines((line + b"\n" for line in lines), MEBIBYTE),
        text,
        context_tokens=4096,
        row_limit_bytes=MEBIBYTE,
        examples_minimum=1,
        param="training_file",
        file_id="file-1",
        objective=find_objective(objective),
        folder=folder,
    )


def counted(monkeypatch: pytest.MonkeyPatch, calls: Counter[str], owner: type, name: str) -> None:
    called: Callable[..., Any] = getattr(owner, name)

    def count(*arguments: Any, **options: Any) -> Any:
        calls[name] += 1
        return called(*arguments, **options)

    monkeypatch.setattr(owner, name, count)


@pytest.mark.parametrize("objective", [*ROWS, "prompts"])
def test_rows_that_are_encoded_together_have_the_tokens_of_each_alone(objective: str, tmp_path: Path) -> None:
    text, renderer = BaseText(tokenizer_for("bundled")), Renderer(BaseText(tokenizer_for("bundled")), 4096)
    rows, method = (PROMPTS, "supervised") if objective == "prompts" else (ROWS[objective], objective)
    lines = lines_of(rows, 40)
    dataset, number = check(lines, method, text, tmp_path), 0
    for line in lines:
        parsed = parse_row(line, 2, find_objective(method))
        assert isinstance(parsed, tuple) and isinstance(parsed[1], AnyRow)
        for alone in renderer.render(parsed[1]):
            ids, trained = dataset.row(number)
            assert (ids.tolist(), trained.tobytes()) == (alone.ids, bytes(alone.trained))
            number += 1
    assert number == len(dataset)


@pytest.mark.parametrize("objective", [*ROWS, "prompts"])
def test_texts_of_many_rows_are_encoded_in_one_call(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = BaseText(tokenizer_for("bundled"))
    rows, method = (PROMPTS, "supervised") if objective == "prompts" else (ROWS[objective], objective)
    check(lines_of(rows, 4), method, text)  # what is found out once of a base
    calls: Counter[str] = Counter()
    counted(monkeypatch, calls, PreTrainedTokenizerBase, "__call__")
    counted(monkeypatch, calls, ChatTemplate, "_apply")
    counted(monkeypatch, calls, WholeRendering, "render")
    counted(monkeypatch, calls, PreTrainedTokenizerBase, "apply_chat_template")
    batches: list[int] = []
    encodes = Tokenizer.encode_batch_fast

    class Rust:
        """The tokenizer in Rust, which cannot be changed, and what it is asked."""

        def __init__(self, rust: Tokenizer) -> None:
            self._rust = rust

        def __getattr__(self, name: str) -> Any:
            return getattr(self._rust, name)

        def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
            batches.append(len(texts))
            return encodes(self._rust, texts, **options)

    found = BaseText.rust.fget  # type: ignore[attr-defined]  # a property's function
    monkeypatch.setattr(BaseText, "rust", property(lambda self: Rust(found(self))))
    num_rows = GROUP_LINES + 10
    check(lines_of(rows, num_rows), method, text)
    assert len(batches) <= 4  # two groups, with and without the tokens that a tokenizer adds
    assert calls["__call__"] <= 4  # of special tokens
    assert calls["_apply"] <= 40  # what is found out of a template
    assert calls["render"] <= num_rows * (2 if objective == "dpo" else 1)  # one conversation, whatever its turns
    assert calls["apply_chat_template"] <= 40  # texts alone need none of its preparations


def test_the_next_rows_are_rendered_while_texts_are_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoding waits here until rows of the group after it have been rendered, and would wait in vain without that."""
    text = BaseText(tokenizer_for("bundled"))
    lines = lines_of(ROWS["supervised"], 2 * GROUP_LINES)
    second, came = Event(), []
    prepares, encodes = Renderer.prepare, Renderer.encode
    num_prepared = 0

    def prepare(self: Renderer, row: AnyRow) -> Prepared:
        nonlocal num_prepared
        num_prepared += 1
        if num_prepared > GROUP_LINES:
            second.set()
        return prepares(self, row)

    def encode(self: Renderer, rows: Sequence[Prepared]) -> Encodings:
        came.append(second.wait(timeout=10))
        return encodes(self, rows)

    monkeypatch.setattr(Renderer, "prepare", prepare)
    monkeypatch.setattr(Renderer, "encode", encode)
    check(lines, "supervised", text)
    assert came == [True, True]


def mapped_bytes(folder: Path) -> int:
    """How much of this process' memory are pages of files in `folder`."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        name, value = line.split(maxsplit=1)
        if "-" in name:
            inside = str(folder) in value
        elif name == "Rss:" and inside:
            total += int(value.split()[0]) * 1024
    return total


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file eight times as large the tokens are on disk. Numbers are kept in memory up to a limit, which is lower
    here so that small files are beyond it.
    """
    monkeypatch.setattr(tokenized, "SPOOL_BYTES", 4096)
    text = BaseText(tokenizer_for("bundled"))
    line = json.dumps({"text": "The card was declined at a shop. " * 2000}).encode()

    def peak(count: int) -> int:
        gc.collect()
        tracemalloc.start()
        try:
            dataset = check([line] * count, "text", text, tmp_path)
            dataset.save(tmp_path / "rows")
            return tracemalloc.get_traced_memory()[1] + mapped_bytes(tmp_path)
        finally:
            tracemalloc.stop()

    peak(2)
    small, size = peak(20), (tmp_path / "rows").stat().st_size
    large = peak(160)
    grown = (tmp_path / "rows").stat().st_size - size
    assert grown > 8 * MEBIBYTE
    assert large - small < grown / 8
