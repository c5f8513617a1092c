"""Rows through the check of a file, as validation does it, with the tokenizer of the bundled base."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from service.recipes.objective import ObjectiveSettings
from tests.given.templates import tokenizer_for
from workers.data.base_text import BaseText
from workers.data.check import DatasetInvalid, check_file
from workers.data.tokenized import TokenizedDataset

TEXT = BaseText(tokenizer_for("bundled"))


def checked_rows(
    *rows: dict[str, Any], objective: type[ObjectiveSettings], context_tokens: int, **more: Any
) -> TokenizedDataset:
    """Raises DatasetInvalid."""
    return check_file(
        [json.dumps(row).encode() for row in rows],
        TEXT,
        context_tokens=context_tokens,
        row_limit_bytes=10_000,
        examples_minimum=1,
        param="training_file",
        file_id="file-1",
        objective=objective,
        **more,
    )


def problems_of(check: Callable[[], object]) -> list[tuple[int, str, str]]:
    """Line, field and reason of what the check refuses."""
    with pytest.raises(DatasetInvalid) as invalid:
        check()
    return [(one["line"], one["field"], one["reason"]) for one in invalid.value.details["problems"]]
