"""Rows of texts that belong together: as tokens, each text alone; of one kind in a file; each mistake by its field."""

import json
from typing import Any

import pytest

from service.recipes.objectives.embedding import EmbeddingSettings
from tests.given.templates import tokenizer_for
from workers.data.base_text import BaseText
from workers.data.check import DatasetInvalid, check_file
from workers.data.render import encode_prompt
from workers.data.tokenized import TokenizedDataset

TEXT = BaseText(tokenizer_for("bundled"))
PAIR = {"anchor": "Where is it?", "positive": "In Köln."}
TRIPLET = {**PAIR, "negative": "Tomorrow."}


def checked(*rows: dict[str, Any]) -> TokenizedDataset:
    return check_file(
        [json.dumps(row).encode() for row in rows],
        TEXT,
        context_tokens=24,
        row_limit_bytes=10_000,
        examples_minimum=1,
        param="training_file",
        file_id="file-1",
        objective=EmbeddingSettings,
    )


def refused(*rows: dict[str, Any]) -> list[tuple[int, str, str]]:
    with pytest.raises(DatasetInvalid) as invalid:
        checked(*rows)
    return [(one["line"], one["field"], one["reason"]) for one in invalid.value.details["problems"]]


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
