"""The plan of a step: every example once, within the limit, at the lowest cost; a job keeps its version."""

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from tests.given.slots import TRAIN, adapter, run, seat
from workers.model.load import LoadedBase
from workers.trainer.process import plan
from workers.trainer.process.plan import (
    COST_TOKENS,
    LIMIT_TOKENS,
    PlanVersion,
    micro_batches,
    packed_micro_batches,
)
from workers.trainer.process.snapshot import STATE


def cost(groups: Sequence[Sequence[int]], lengths: Sequence[int], rows_per_example: int = 1) -> int:
    """Padded tokens and the micro-batches' own cost; infinite above the limit."""
    padded = [max(lengths[example] for example in group) * len(group) * rows_per_example for group in groups]
    too_large = any(tokens > LIMIT_TOKENS and len(group) > 1 for tokens, group in zip(padded, groups, strict=True))
    return 10**9 if too_large else sum(padded) + COST_TOKENS * len(groups)


def every_plan(lengths: Sequence[int]) -> list[list[list[int]]]:
    """All ways to cut the examples, longest first, into groups."""
    order = sorted(range(len(lengths)), key=lambda example: -lengths[example])
    cuts = [cut for count in range(len(order)) for cut in combinations(range(1, len(order)), count)]
    return [[order[a:b] for a, b in zip((0, *cut), (*cut, len(order)), strict=True)] for cut in cuts]


@pytest.mark.parametrize("rows_per_example", [1, 2])
def test_no_other_plan_is_cheaper(rows_per_example: int) -> None:
    random = np.random.RandomState(7)
    for _ in range(40):
        lengths = [int(length) for length in np.exp(random.normal(5, 1.5, size=random.randint(1, 9))) + 1]
        groups = micro_batches(range(len(lengths)), lengths, rows_per_example, version=2)
        assert sorted(example for group in groups for example in group) == list(range(len(lengths)))
        cheapest = min(cost(one, lengths, rows_per_example) for one in every_plan(lengths))
        assert cost(groups, lengths, rows_per_example) == cheapest


def test_rows_of_unlike_length_are_not_padded_to_the_longest() -> None:
    """Counted, as a guard: padded tokens for each token, in steps of 8 rows of a mix, and of short rows."""
    random = np.random.RandomState(3)
    steps = [[int(length) for length in np.exp(random.normal(5, 0.9, size=8))] for _ in range(50)]
    tokens = sum(map(sum, steps))

    def padded(version: PlanVersion) -> int:
        plans = [(lengths, micro_batches(range(8), lengths, version=version)) for lengths in steps]
        return sum(cost(groups, lengths) - COST_TOKENS * len(groups) for lengths, groups in plans)

    assert padded(1) > 1.8 * tokens
    assert padded(2) < 1.2 * tokens
    assert len(micro_batches(range(8), [20, 22, 19, 25, 18, 21, 24, 23])) == 1


def test_the_first_version_fills_each_micro_batch() -> None:
    lengths = [5, 30, 7, 7, 90, 12, 5, 29]
    assert micro_batches(range(8), lengths, version=1, limit_tokens=60) == [[4], [1, 7], [5, 2, 3, 0, 6]]


def test_a_longer_example_goes_alone_and_equal_lengths_stay_together() -> None:
    assert micro_batches(range(3), [9000, 10, 9000]) == [[0], [2], [1]]
    assert sorted(map(len, micro_batches(range(256), [100] * 256))) == [16, *[40] * 6]


def test_packed_rows_fill_each_micro_batch_and_a_longer_example_goes_alone() -> None:
    assert packed_micro_batches(range(8), [5, 30, 7, 7, 90, 12, 5, 29], limit_tokens=60) == [
        [4],
        [1, 7],
        [5, 2, 3, 0, 6],
    ]
    assert packed_micro_batches(range(3), [10, 9000, 10]) == [[1], [0, 2]]
    assert [len(group) for group in packed_micro_batches(range(256), [100] * 256)] == [40] * 6 + [16]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_job_in_flight_goes_on_by_the_plan_that_it_began_with(
    base: LoadedBase, tmp_path: Path, version: PlanVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot of before plans had versions has the first; it resumes to the bits of a job that never stopped."""
    monkeypatch.setattr(plan, "COST_TOKENS", 0)  # so that the two versions differ for these short rows
    lengths = [TRAIN.length(row) for row in range(10)]
    assert micro_batches(range(10), lengths, version=1) != micro_batches(range(10), lengths, version=2)
    results = {}
    for stop in (False, True):
        monkeypatch.setattr(plan, "CURRENT", version)
        slot = seat(base, batch_size=10)
        slot.train_step()
        if stop:
            slot.snapshot().write(tmp_path / "snapshot")
            slot.leave()
            if version == 1:
                forget_version(tmp_path / "snapshot" / STATE)
            monkeypatch.setattr(plan, "CURRENT", 3 if version < 3 else 2)
            slot = seat(base, batch_size=10)
            assert slot.restore(tmp_path / "snapshot") == ""
        run(slot)
        results[stop] = adapter(slot, tmp_path / f"adapter {stop}")
        state = json.loads(slot.snapshot().state.model_dump_json())
        assert (state["plan"], state["packed"]) == (version, version == 3)
        slot.leave()
    assert results[True] == results[False]


def forget_version(path: Path) -> None:
    state = json.loads(path.read_text())
    assert state.pop("plan") == 1 and state.pop("packed") is False
    path.write_text(json.dumps(state))
