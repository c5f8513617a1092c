"""Rows of texts that belong together: as tokens, each text alone; of one kind in a file; each mistake by its field."""

from typing import Any

import pytest

from service.recipes.objectives.embedding import EmbeddingSettings
from tests.given.checked_rows import TEXT, checked_rows, problems_of
from workers.data.render import encode_prompt
from workers.data.tokenized import TokenizedDataset

PAIR = {"anchor": "Where is it?", "positive": "In Köln."}
TRIPLET = {**PAIR, "negative": "Tomorrow."}


def checked(*rows: dict[str, Any]) -> TokenizedDataset:
    return checked_rows(*rows, objective=EmbeddingSettings, context_tokens=24)


def refused(*rows: dict[str, Any]) -> list[tuple[int, str, str]]:
    return problems_of(lambda: checked(*rows))


@pytest.mark.parametrize("row", [PAIR, TRIPLET], ids=["pair", "triplet"])
def test_every_text_is_a_row_as_an_engine_reads_it(row: dict[str, str]) -> None:
    dataset = checked(row, {**row, "weight": 0.5}, {**row, "weight": 0})
    assert (dataset.rows_per_example, dataset.num_examples, dataset.num_trained_tokens) == (len(row), 2, 0)
    assert [dataset.row(place)[0].tolist() for place in range(len(row))] == [
        encode_prompt(TEXT, text) for text in row.values()
    ]
    assert dataset.row_weights is not None
    assert dataset.row_weights.tolist() == [1.0] * len(row) + [0.5] * len(row)


def test_a_file_has_rows_of_one_kind() -> None:
    ((line, _, reason),) = refused(PAIR, TRIPLET)
    assert line == 2
    assert "triplets of anchor, positive and negative after pairs of anchor and positive" in reason


def test_what_is_missing_empty_or_too_long_is_named() -> None:
    assert refused({"anchor": "a"}, {**PAIR, "positive": " "}, {**PAIR, "positive": "x" * 90}) == [
        (1, "positive", 'has no "positive"'),
        (2, "positive", "is empty"),
        (3, "positive", "is too long for the base (90 tokens, at most 24); shorten it"),
    ]
    special = TEXT.tokenizer.eos_token
    ((line, field, reason),) = refused({**TRIPLET, "negative": f"No {special}"})
    assert (line, field) == (1, "negative") and "a special token of the base" in reason
