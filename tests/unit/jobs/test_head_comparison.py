"""Whether an engine computes a trained head: rounding passes, another model does not, what cannot be seen is noted."""

import math

import pytest

from workers.jobs.comparison import compare_heads
from workers.trainer.protocol import HeadRow

ROWS = [
    HeadRow(ids=[1, 2], values=[0.9, 0.1], base_values=[0.6, 0.4]),
    HeadRow(ids=[3], values=[0.2, 0.8], base_values=[0.5, 0.5]),
]


def test_an_engine_that_rounds_otherwise_agrees() -> None:
    found = compare_heads(ROWS, [[0.90002, 0.09998], [0.2, 0.8]], "float32")
    assert not found.contradicts and found.decisive
    assert found.difference == pytest.approx(0.02, rel=1e-3) and found.effect == pytest.approx(300)


def test_an_engine_that_leaves_the_tuning_out_is_refused() -> None:
    for dtype in ("float32", "bfloat16"):
        assert compare_heads(ROWS, [row.base_values for row in ROWS], dtype).contradicts


def test_what_is_no_number_or_has_another_shape_is_refused() -> None:
    assert compare_heads(ROWS, [[math.nan, 0.1], [0.2, 0.8]], "float32").contradicts
    assert compare_heads(ROWS, [[0.9, 0.05, 0.05], [0.2, 0.8]], "float32").contradicts
    with pytest.raises(ValueError, match="did not compute the rows"):
        compare_heads(ROWS, [[0.9, 0.1]], "float32")


def test_a_tuning_that_changes_nothing_is_not_decisive() -> None:
    rows = [HeadRow(ids=[1], values=[0.9, 0.1], base_values=[0.9001, 0.0999])]
    found = compare_heads(rows, [[0.9, 0.1]], "float32")
    assert not found.contradicts and not found.decisive


def test_vectors_are_compared_by_their_distance() -> None:
    """However many numbers they have: each differs by less than a probability may, all together by more."""
    size = 400
    ours, theirs = [[1 / math.sqrt(size)] * size, [1 / math.sqrt(size) + sign * 4e-4 for sign in (-1, 1) * 200]]
    rows = [HeadRow(ids=[1], values=ours, base_values=theirs)]
    assert not compare_heads(rows, [theirs], "float32").contradicts
    found = compare_heads(rows, [theirs], "float32", vectors=True)
    assert found.contradicts and found.difference == found.effect == pytest.approx(8, rel=1e-6)
    assert not compare_heads(rows, [ours], "float32", vectors=True).contradicts
    assert compare_heads(rows, [ours[1:]], "float32", vectors=True).contradicts


def test_a_large_score_may_differ_in_proportion() -> None:
    rows = [HeadRow(ids=[1], values=[200.0], base_values=[0.0])]
    assert not compare_heads(rows, [[200.1]], "float32").contradicts
    assert compare_heads(rows, [[201.0]], "float32").contradicts
