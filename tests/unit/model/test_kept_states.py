"""What a base computed for rows is kept for the next job that has the same ones, within a limit."""

import pytest
import torch

from workers.model.load import KeptStates


def test_the_same_rows_are_computed_once_and_the_longest_unused_are_dropped() -> None:
    kept, computed = KeptStates(limit_bytes=2 * 4 * 3), []

    def states(*rows: tuple[int, ...]) -> torch.Tensor:
        def compute() -> torch.Tensor:
            computed.append(rows)
            return torch.full((1, 3), float(len(computed)))

        return kept.of(rows, compute)

    first = states((1, 2), (3,))
    assert torch.equal(states((1, 2), (3,)), first) and len(computed) == 1
    states((1,), (2, 3))  # cut otherwise
    states((1, 2), (3,))
    states((4,))
    assert kept.num_bytes == 24
    states((1, 2), (3,))
    assert len(computed) == 3
    states((1,), (2, 3))
    assert len(computed) == 4


@pytest.mark.parametrize("other", [[[1, 9], [3]], [[1], [2, 3]], [[1, 2, 3]]], ids=["tokens", "cut", "one row"])
def test_states_of_other_rows_are_not_taken(other: list[list[int]]) -> None:
    kept = KeptStates()
    kept.of([[1, 2], [3]], lambda: torch.zeros(1, 1))
    assert kept.of(other, lambda: torch.ones(1, 1)).item() == 1


def test_states_of_another_number_of_threads_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptStates()
    kept.of([[1]], lambda: torch.zeros(1, 1))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert kept.of([[1]], lambda: torch.ones(1, 1)).item() == 1


def test_states_larger_than_the_limit_are_kept_alone() -> None:
    kept = KeptStates(limit_bytes=1)
    for row in ([1], [2]):
        kept.of([row], lambda: torch.zeros(4, 4))
    assert kept.num_bytes == 64
