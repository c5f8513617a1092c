"""The order of rows and the tensors of a step."""

import random

import numpy as np
import torch

from workers.data.batches import collate, epoch_order, steps_per_epoch
from workers.data.tokenized import TokenizedDataset


def dataset() -> TokenizedDataset:
    """Rows [10, 11, 12], [20, 21], [30, 31, 32, 33]; each row's first token is not trained."""
    tokens = [10, 11, 12, 20, 21, 30, 31, 32, 33]
    trained = [0, 1, 1, 0, 1, 0, 1, 1, 1]
    return TokenizedDataset(np.array(tokens, np.int32), np.array(trained, np.uint8), np.array([0, 3, 5, 9], np.int64))


def test_an_order_holds_every_row_once() -> None:
    assert sorted(epoch_order(7, 2, 100)) == list(range(100))


def test_orders_differ_by_seed_and_by_epoch() -> None:
    orders = [tuple(epoch_order(seed, epoch, 50)) for seed in (0, 1, 2**31 - 1) for epoch in (0, 1, 49)]
    assert len(set(orders)) == len(orders)


def test_an_order_is_the_same_in_every_process() -> None:
    assert epoch_order(42, 3, 8) == [2, 3, 5, 0, 6, 7, 4, 1]


def test_an_order_neither_reads_nor_moves_the_global_random_state() -> None:
    expected = epoch_order(1, 1, 20)
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    before = np.random.get_state()[1].copy()
    assert epoch_order(1, 1, 20) == expected
    assert np.array_equal(np.random.get_state()[1], before)


def test_the_last_smaller_batch_is_a_step() -> None:
    assert [steps_per_epoch(n, 4) for n in (1, 4, 5, 8)] == [1, 1, 2, 2]


def test_rows_are_padded_on_the_right_and_only_trained_tokens_are_labels() -> None:
    batch = collate(dataset(), [2, 1], pad_id=0)
    assert batch.input_ids_BT.tolist() == [[30, 31, 32, 33], [20, 21, 0, 0]]
    assert batch.attention_mask_BT.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.labels_BT.tolist() == [[-100, 31, 32, 33], [-100, 21, -100, -100]]


def test_padding_that_is_also_a_trained_token_stays_out_of_the_loss() -> None:
    batch = collate(dataset(), [1, 0], pad_id=21)
    assert batch.labels_BT.tolist() == [[-100, 21, -100], [-100, 11, 12]]


def test_collating_leaves_the_dataset_as_it_was() -> None:
    rows = dataset()
    batch = collate(rows, [0, 1, 2], pad_id=0)
    batch.input_ids_BT.fill_(9)
    assert np.array_equal(rows.tokens, dataset().tokens)
