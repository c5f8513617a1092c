"""Which scores an engine keeps: those of prompts alone, of the base, up to a limit."""

from typing import cast

import pytest

from workers.engines.embedded.batcher import KeptScores
from workers.model.adapters import Adapter
from workers.model.generate import BatchRow
from workers.model.sampling import Sampling, Token


def row(prompt: list[int], *, ends: bool = True, score_prompt: bool = True, num_top: int = 1) -> BatchRow:
    return BatchRow(prompt, Sampling(), num_top=num_top, score_prompt=score_prompt, ends=ends)


def test_scores_are_those_of_the_same_prompt_and_the_longest_unused_are_dropped() -> None:
    kept, scores = KeptScores(limit_tokens=4), [Token(2, -1.0), Token(3, -2.0)]
    kept.keep(row([1, 2, 3]), scores)
    assert kept.of(row([1, 2, 3])) == scores
    assert kept.of(row([1, 2, 4])) is None and kept.of(row([1, 2, 3], num_top=2)) is None
    kept.keep(row([4, 2, 3]), scores)
    kept.keep(row([1, 2, 3]), scores)  # known: it does not count twice
    assert kept.of(row([1, 2, 3])) == scores
    kept.keep(row([5, 2, 3]), scores)
    assert kept.of(row([4, 2, 3])) is None
    assert kept.of(row([1, 2, 3])) == kept.of(row([5, 2, 3])) == scores


@pytest.mark.parametrize("asked", [{"ends": False}, {"score_prompt": False}])
def test_what_goes_on_after_its_prompt_has_to_be_computed(asked: dict[str, bool]) -> None:
    kept = KeptScores()
    kept.keep(row([1, 2], **asked), [Token(2, -1.0)])
    assert kept.of(row([1, 2], **asked)) is None


def test_a_tuned_models_scores_are_not_kept() -> None:
    kept, tuned = KeptScores(), row([1, 2])
    tuned.adapter = cast(Adapter, object())
    kept.keep(tuned, [Token(2, -1.0)])
    kept.keep(row([1, 2]), [Token(2, -2.0)])
    assert kept.of(tuned) is None


def test_scores_longer_than_the_limit_are_not_kept() -> None:
    kept = KeptScores(limit_tokens=1)
    kept.keep(row([1, 2, 3]), [Token(2, -1.0), Token(3, -2.0)])
    assert kept.of(row([1, 2, 3])) is None
