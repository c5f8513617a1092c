"""The tokenised file: its columns, its version, and the files of earlier versions, which queued jobs still have."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from workers.data.batches import collate
from workers.data.tokenized import COLUMNS, DatasetBuilder, TokenizedDataset

EARLIER = Path(__file__).parents[2] / "given" / "upgrades"


def full() -> TokenizedDataset:
    """Two rows with every column that there is."""
    return TokenizedDataset(
        np.array([10, 11, 12, 20, 21], np.int32),
        np.array([0, 1, 1, 0, 1], np.uint8),
        np.array([0, 3, 5], np.int64),
        token_weights=np.array([0, 0.5, 1, 0, 2], np.float32),
        row_labels=np.array([3, 0], np.int64),
        row_label_probabilities=np.array([[0.5, 0.5], [0.25, 0.75]], np.float32),
        row_label_sets=np.array([[0, 0, 1, 1], [1, 0, 0, 0]], np.uint8),
        row_weights=np.array([0.25, 4], np.float32),
        second_tokens=np.array([7, 8, 9, 9], np.int32),
        second_offsets=np.array([0, 1, 4], np.int64),
        example_offsets=np.array([0, 1, 2], np.int64),
        labels=("a", "b", "ä", 'd"'),
    )


def test_every_column_comes_back_and_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    full().save(tmp_path / "a")
    full().save(tmp_path / "b")
    loaded = TokenizedDataset.load(tmp_path / "a")
    assert loaded.columns == set(COLUMNS) and loaded.labels == full().labels
    loaded.save(tmp_path / "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    with safe_open(tmp_path / "a", framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    save_file(arrays, tmp_path / "d", metadata={"version": "2"})  # the library's own bytes
    assert (tmp_path / "a").read_bytes() == (tmp_path / "d").read_bytes()


@pytest.mark.parametrize("name", ["rows", "rows-0.1.0"])
def test_a_file_of_an_earlier_version_is_readable(name: str) -> None:
    loaded = TokenizedDataset.load(EARLIER / f"{name}.safetensors")
    assert loaded.tokens.tolist() == [10, 11, 12, 20, 21, 30, 31, 32, 33]
    assert loaded.trained.tolist() == [0, 1, 1, 0, 1, 0, 0, 0, 1]
    assert (loaded.offsets.tolist(), loaded.rows_per_example) == ([0, 3, 5, 9], 1)
    assert loaded.prompt_lengths is not None and loaded.prompt_lengths.tolist() == [1, 1, 3]
    assert loaded.columns == {"trained", "prompt_lengths"}


def test_pairs_of_an_earlier_version_are_still_pairs() -> None:
    loaded = TokenizedDataset.load(EARLIER / "pairs.safetensors")
    assert (loaded.num_examples, len(loaded)) == (2, 4)
    assert loaded.prompt_lengths is not None and loaded.prompt_lengths.tolist() == [1, 1, 2, 1]


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    rows = full()
    save_file({"tokens": rows.tokens, "offsets": rows.offsets}, tmp_path / "later", metadata={"version": "3"})
    with pytest.raises(ValueError, match="version 3"):
        TokenizedDataset.load(tmp_path / "later")


def test_a_prompt_ends_where_the_first_trained_token_stands() -> None:
    rows = DatasetBuilder()
    rows.add([1, 2, 3, 4], [0, 0, 1, 0])
    rows.add([5, 6], [0, 0])
    rows.add([7], [1])
    dataset = rows.build()
    assert [dataset.prompt(row).tolist() for row in range(3)] == [[1, 2], [5, 6], []]


def test_what_an_objective_learns_from_must_be_in_the_file() -> None:
    full().require(["row_labels", "second_tokens"])
    rows = DatasetBuilder()
    rows.add([1, 2], [0, 1])
    with pytest.raises(ValueError, match="no column row_labels"):
        rows.build().require(["trained", "row_labels"])


def test_columns_that_do_not_fit_the_rows_are_refused() -> None:
    rows = DatasetBuilder()
    rows.add([1, 2], [0, 1], label=1)
    rows.add([3, 4], [0, 1])
    with pytest.raises(ValueError, match="row_labels"):
        rows.build()
    for wrong in ({"token_weights": np.ones(4, np.float32)}, {"second_tokens": np.ones(2, np.int32)}):
        with pytest.raises(ValueError, match="does not fit"):
            TokenizedDataset(full().tokens, full().trained, full().offsets, **wrong)


def test_a_batch_carries_the_columns_that_exist() -> None:
    batch = collate(full(), [1, 0], pad_id=0).to(torch.device("cpu"))
    assert batch.token_weights_BT is not None and batch.token_weights_BT.tolist() == [[0, 2, 0], [0, 0.5, 1]]
    assert batch.row_labels_B is not None and batch.row_labels_B.tolist() == [0, 3]
    assert batch.row_weights_B is not None and batch.row_weights_B.tolist() == [4, 0.25]
    assert batch.second_ids_BS is not None and batch.second_ids_BS.tolist() == [[8, 9, 9], [7, 0, 0]]
    assert batch.second_mask_BS is not None and batch.second_mask_BS.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.prompt_lengths_B is not None and batch.prompt_lengths_B.tolist() == [1, 1]
    assert batch.trained_K.tolist() == [0, 1]
    plain = collate(TokenizedDataset(full().tokens, full().trained, full().offsets), [0], pad_id=0)
    columns = (plain.token_weights_BT, plain.row_labels_B, plain.row_weights_B, plain.second_ids_BS)
    assert columns == (None, None, None, None)
