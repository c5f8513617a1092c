"""Two opinions of the same tokens, and the rows on their way through storage."""

import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.storage import StorageError
from service.storage.base import one_chunk
from service.storage.local import LocalStore
from workers.files.transfer import ObjectCorrupt
from workers.jobs.samples import compare, fetch_sample, store_sample
from workers.trainer.protocol import ScoredRow

ROWS = [ScoredRow(ids=[5, 6, 7], logprobs=[-1.0, -2.0]), ScoredRow(ids=[8, 9], logprobs=[-3.0])]


def test_the_difference_is_the_mean_of_absolute_ones() -> None:
    found = compare(ROWS, [[-1.25, -1.75], [-3.0]])
    assert (found.mean, found.largest, found.num_tokens) == (0.5 / 3, 0.25, 3)
    assert (found.trained, found.served) == (-2.0, -2.0)  # which agree, although their tokens do not


@pytest.mark.parametrize("broken", [math.nan, -math.inf])
def test_what_is_no_number_is_infinitely_far_away(broken: float) -> None:
    found = compare(ROWS, [[-1.0, broken], [-3.0]])
    assert found.mean == found.largest == math.inf


def test_fewer_tokens_than_were_scored_are_no_agreement() -> None:
    with pytest.raises(ValueError):
        compare(ROWS, [[-1.0, -2.0], []])
    with pytest.raises(ValueError):
        compare([], [])


async def test_the_rows_come_back_to_the_last_bit_or_not_at_all(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    rows = [ScoredRow(ids=[1, 2], logprobs=[-1 / 3])]
    key, sha256 = await store_sample(store, "ftjob-1", "ft:tiny:acme::a1b2c3d4", rows)
    assert key.startswith("jobs/ftjob-1/")  # and goes with all that is the job's own
    assert await fetch_sample(store, key, sha256) == rows
    await store.put(key, one_chunk(b"[]"))
    with pytest.raises(ObjectCorrupt):
        await fetch_sample(store, key, sha256)


async def test_a_store_that_breaks_off_gets_all_of_it_at_the_next_try(tmp_path: Path) -> None:
    class BreaksOff(LocalStore):
        broken = False

        async def put(self, key: str, chunks: AsyncIterator[bytes], *, replace: bool = True) -> int:
            if self.broken:
                return await super().put(key, chunks, replace=replace)
            self.broken = True
            async for _ in chunks:  # the line is cut when everything has been sent
                pass
            raise StorageError(key)

    store = BreaksOff(tmp_path)
    key, sha256 = await store_sample(store, "ftjob-1", "ft:tiny:acme::a1b2c3d4", ROWS)
    assert await fetch_sample(store, key, sha256) == ROWS
