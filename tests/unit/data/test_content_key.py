"""Whatever decides the tokens of a file is in its key; what does not, is not."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from service.recipes.objectives.dpo import DpoSettings
from service.recipes.objectives.supervised import SupervisedSettings
from tests.given.tiny_models import CONTEXT_TOKENS, VOCABULARY, make_tiny_base
from workers.data import content_key as module
from workers.data.base_text import BaseText
from workers.data.content_key import content_key, text_digest
from workers.toy_base.tokenizer import save_tokenizer, train_tokenizer

GIVEN: dict[str, Any] = {
    "text": "a",
    "segments": ["b", "c"],
    "objective": SupervisedSettings,
    "row_tokens": 256,
    "row_limit_bytes": 1000,
    "examples_minimum": 10,
}
OTHER: dict[str, Any] = {
    "text": "z",
    "segments": ["bc"],
    "objective": DpoSettings,
    "row_tokens": 255,
    "row_limit_bytes": 999,
    "examples_minimum": 1,
    "template_day": date(2026, 1, 2),
    "turns_apart": True,
}


@pytest.mark.parametrize("name", OTHER)
def test_each_thing_that_decides_the_tokens_changes_the_key(name: str) -> None:
    assert content_key(**GIVEN) == content_key(**GIVEN)
    assert content_key(**GIVEN) != content_key(**{**GIVEN, name: OTHER[name]})


def test_another_day_is_another_key_where_the_template_prints_it() -> None:
    first, second = (content_key(**GIVEN, template_day=date(2026, 1, day)) for day in (1, 2))
    assert first != second


def test_a_changed_renderer_and_changed_packages_change_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_key(**GIVEN)
    monkeypatch.setattr(module, "RENDERER_VERSION", module.RENDERER_VERSION + 1)
    raised = content_key(**GIVEN)
    monkeypatch.setattr(module, "version", lambda package: "999")
    assert len({before, raised, content_key(**GIVEN)}) == 3


def test_a_tokenizer_has_one_digest_before_and_after_its_use(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_tiny_base(tmp_path).source)
    before = text_digest(BaseText(tokenizer))
    tokenizer(["one", "one and two"], padding=True, truncation=True, max_length=3)
    assert text_digest(BaseText(tokenizer)) == before


def test_vocabulary_special_tokens_and_template_change_the_digest(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_tiny_base(tmp_path / "base").source)
    digests = {text_digest(BaseText(tokenizer))}
    (tmp_path / "other").mkdir()
    save_tokenizer(train_tokenizer(["words and words"] * 9, VOCABULARY + 8), tmp_path / "other", CONTEXT_TOKENS)
    digests.add(text_digest(BaseText(AutoTokenizer.from_pretrained(tmp_path / "other"))))
    tokenizer.chat_template += " "
    digests.add(text_digest(BaseText(tokenizer)))
    tokenizer.bos_token = tokenizer.eos_token
    digests.add(text_digest(BaseText(tokenizer)))
    digests |= {text_digest(BaseText(tokenizer, frozenset({5}))), text_digest(BaseText(tokenizer, num_embeddings=9))}
    assert len(digests) == 6
