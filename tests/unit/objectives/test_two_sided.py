"""The supervised loss on an encoder-decoder is the library's own, whatever is padded beside it."""

import pytest
import torch
from torch import Tensor

from service.domain.errors import JobError
from tests.given.encoder_decoders import load_encoder_decoder, two_sided_rows
from tests.given.recipes import recipe
from tests.given.tunings import KINDS
from workers.data.batches import IGNORED
from workers.data.tokenized import TokenizedDataset
from workers.model.load import LoadedBase, environment
from workers.trainer.process.passes import Passes
from workers.trainer.process.plan import COST_TOKENS, micro_batches
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec

ROWS = two_sided_rows(9, seed=1)


@pytest.fixture(scope="module")
def base() -> LoadedBase:
    return load_encoder_decoder("t5")


def seat(base: LoadedBase, train: TokenizedDataset = ROWS) -> Slot:
    spec = JobSpec(
        job_id="two-sided", recipe=recipe(KINDS["full"]), n_epochs=1, batch_size=9, learning_rate=1e-3, seed=3,
        snapshot_steps=100,
    )  # fmt: skip
    return Slot(base, environment(base.device), spec, train, None)


def library_loss(slot: Slot) -> Tensor:
    """T5's own, over all rows padded to the longest on both sides."""
    reads = [torch.tensor(ROWS.second(row).astype("int64")) for row in range(len(ROWS))]
    writes = [torch.tensor(ROWS.row(row)[0][1:].astype("int64")) for row in range(len(ROWS))]
    ids_BS = torch.nn.utils.rnn.pad_sequence(reads, batch_first=True, padding_value=9)
    mask_BS = torch.nn.utils.rnn.pad_sequence([torch.ones_like(ids) for ids in reads], batch_first=True)
    labels_BT = torch.nn.utils.rnn.pad_sequence(writes, batch_first=True, padding_value=IGNORED)
    loss: Tensor = slot._tuning.model(input_ids=ids_BS, attention_mask=mask_BS, labels=labels_BT).loss
    return loss


def test_loss_and_gradient_are_the_librarys(base: LoadedBase) -> None:
    slot = seat(base)
    passes: Passes = slot._passes
    parameters = list(slot._tuning.parameters().values())
    expected = library_loss(slot)
    wanted = torch.autograd.grad(expected, parameters)
    found, _ = passes.train(ROWS, range(len(ROWS))).read()
    assert found.loss == pytest.approx(float(expected.detach()), abs=1e-5)
    for parameter, gradient in zip(parameters, wanted, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient, atol=1e-5)
    assert found.cost_tokens == ROWS.num_tokens
    slot.leave()


def test_only_what_is_written_is_trained_by_its_weight(base: LoadedBase) -> None:
    halved = TokenizedDataset(
        ROWS.tokens, ROWS.trained, ROWS.offsets, second_tokens=ROWS.second_tokens, second_offsets=ROWS.second_offsets,
        token_weights=ROWS.trained.astype("float32") / 2,
    )  # fmt: skip
    slot = seat(base)
    whole, half = (slot._passes.measure(rows, range(len(ROWS))) for rows in (ROWS, halved))
    assert half.loss == pytest.approx(whole.loss / 2, rel=1e-6)
    assert slot._objective.count(next(iter(slot._passes._batches(ROWS, range(9), None)))[1]) <= ROWS.num_trained_tokens
    slot.leave()


def test_the_plan_pads_both_sides_as_little_as_any_cut_of_the_same_order() -> None:
    reads, writes = [300, 290, 40, 40, 40, 300], [10, 200, 9, 11, 10, 12]
    groups = micro_batches(range(6), writes, second_lengths=reads)
    cost = sum(
        COST_TOKENS + len(group) * (max(reads[one] for one in group) + max(writes[one] for one in group))
        for group in groups
    )
    assert sorted(map(sorted, groups)) == [[0, 5], [1], [2, 3, 4]]
    assert cost < COST_TOKENS + 6 * (300 + 200)
    assert micro_batches(range(6), writes, second_lengths=[0] * 6) == micro_batches(range(6), writes)


def test_rows_without_what_the_encoder_reads_end_the_job_with_a_reason(base: LoadedBase) -> None:
    one_sided = TokenizedDataset(ROWS.tokens, ROWS.trained, ROWS.offsets)
    with pytest.raises(JobError, match="no column second_tokens"):
        seat(base, one_sided)
