"""A cache with room holds what one that copies at every token holds."""

import torch
from transformers import DynamicCache

from workers.model.row_cache import ROOM, cache_of, joined, keep_rows, states

SHAPE = 3, 2, 5, 4  # rows, heads, positions, width


def random_states(*shape: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.randn(shape), torch.randn(shape)) for _ in range(2)]


def append(cache: DynamicCache, token: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for number, (keys, values) in enumerate(token):
        returned = cache.update(keys, values, number)
        assert returned == (cache.layers[number].keys, cache.layers[number].values)


def test_tokens_are_appended_and_rarely_move_what_was_there() -> None:
    beginning = random_states(*SHAPE)
    roomy, copying = cache_of(beginning), cache_of(beginning)
    copying.layers = DynamicCache([*beginning]).layers
    places = set()
    for _ in range(2 * ROOM + 2):
        token = random_states(3, 2, 1, 4)
        append(roomy, token)
        append(copying, token)
        places.add(roomy.layers[0].keys.data_ptr())
    for (keys, values), (expected_keys, expected_values) in zip(states(roomy), states(copying), strict=True):
        assert torch.equal(keys, expected_keys) and torch.equal(values, expected_values)
    assert len(places) <= 2, "guard: room for 65 tokens at a time"
    assert roomy.get_seq_length() == 5 + 2 * ROOM + 2


def test_rows_join_at_their_ends_and_leave_with_their_padding() -> None:
    short, long = random_states(1, 2, 3, 4), random_states(2, 2, 5, 4)
    cache = joined([cache_of(short), cache_of(long)])
    append(cache, random_states(3, 2, 1, 4))
    for (keys, _), (of_short, _), (of_long, _) in zip(states(cache), short, long, strict=True):
        assert torch.equal(keys[:1, :, 2:5], of_short) and torch.equal(keys[1:, :, :5], of_long)
        assert not keys[:1, :, :2].any(), "padding is finite: what is masked is still multiplied"
    newest = [keys[:1, :, -1:].clone() for keys, _ in states(cache)]
    keep_rows(cache, torch.tensor([0]), 4)
    append(cache, random_states(1, 2, 1, 4))
    for (keys, _), (of_short, _), of_token in zip(states(cache), short, newest, strict=True):
        assert keys.shape == (1, 2, 5, 4)
        assert torch.equal(keys[:, :, :4], torch.cat([of_short, of_token], dim=2))
