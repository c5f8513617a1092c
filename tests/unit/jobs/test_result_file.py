"""The result file of a job: streamed from its events, whole, whatever the size of a batch."""

import csv
import hashlib

import pytest

from service.installation.context import Context
from service.operations.keys import Caller
from service.storage.base import read
from tests.given.stored_jobs import claimed, steps
from workers.jobs import result_file
from workers.jobs.result_file import store_result


@pytest.mark.parametrize("num_steps", [0, 2, 3, 10])
async def test_the_file_has_a_line_for_each_step(
    ctx: Context, caller: Caller, monkeypatch: pytest.MonkeyPatch, num_steps: int
) -> None:
    monkeypatch.setattr(result_file, "BATCH_ROWS", 3)
    claim = await claimed(ctx, caller)
    if num_steps:
        await claim.record_steps(steps(*range(1, num_steps + 1)), None)
    file, [segment] = await store_result(ctx, claim.job)
    content = await read(ctx.storage, segment.key)
    assert (file.bytes, segment.bytes) == (len(content), len(content))
    assert segment.sha256 == hashlib.sha256(content).hexdigest()
    lines = list(csv.DictReader(content.decode().splitlines()))
    assert [int(line["step"]) for line in lines] == list(range(1, num_steps + 1))
    assert content.startswith(b"step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n")
