"""Drawing tokens: what a cumulative sum over the whole vocabulary finds, found by blocks. Penalties: test_generate."""

import random

import pytest
import torch
from torch import Tensor

from workers.model.sampling import BLOCK_TOKENS, Sampling, choose

ROWS, DRAWS = 8, 40


def by_one_sum(logits_V: Tensor, temperature: float, draw: float) -> tuple[int, float]:
    """The token, and how far the draw is from a token's end: rounding may decide what is closer."""
    cumulative_V = torch.softmax(logits_V.double() / temperature, dim=-1).cumsum(dim=-1)
    target = draw * cumulative_V[-1]
    return int(torch.searchsorted(cumulative_V, target, right=True)), float((cumulative_V - target).abs().min())


@pytest.mark.parametrize("size", [7, BLOCK_TOKENS, 5 * BLOCK_TOKENS + 3, 49_152])
def test_blocks_find_what_one_sum_finds(size: int) -> None:
    torch.manual_seed(0)
    numbers = random.Random(0)
    logits_BV = 3 * torch.randn(ROWS, size)
    compared = 0
    for _ in range(DRAWS):
        draws = [numbers.random() for _ in range(ROWS)]
        found = choose(logits_BV, [Sampling(temperature=0.7)] * ROWS, [[]] * ROWS, draws)
        for logits_V, draw, token in zip(logits_BV, draws, found, strict=True):
            expected, distance = by_one_sum(logits_V, 0.7, draw)
            if distance > 1e-6:
                assert token == expected
                compared += 1
    assert compared > DRAWS * ROWS * 0.8


@pytest.mark.parametrize("draw", [0.0, 0.25, 0.5, 1 - 2.0**-53])
def test_a_token_without_probability_is_never_drawn(draw: float) -> None:
    """Two tokens can be drawn, in blocks that are not the first and not the last."""
    logits_BV = torch.full((2, 9 * BLOCK_TOKENS), -torch.inf)
    possible = [3 * BLOCK_TOKENS + 5, 6 * BLOCK_TOKENS + 255]
    logits_BV[:, possible] = torch.tensor([0.1, 0.2])
    for top_p in (1.0, 0.99):
        sampling = Sampling(temperature=1.0, top_p=top_p)
        assert set(choose(logits_BV, [sampling] * 2, [[]] * 2, [draw] * 2)) == {possible[draw >= 0.5]}


def test_a_row_draws_the_same_alone_and_beside_others() -> None:
    torch.manual_seed(1)
    logits_BV = torch.randn(16, 3000)
    samplings = [Sampling(temperature=0.0 if place % 5 == 0 else 1.0, top_p=0.9) for place in range(16)]
    draws = [place / 16 for place in range(16)]
    together = choose(logits_BV, samplings, [[]] * 16, draws)
    alone = [choose(logits_BV[place : place + 1], [samplings[place]], [[]], [draws[place]])[0] for place in range(16)]
    assert together == alone
