"""Which rows go into which step, and a step's rows as tensors.

Does not depend on text or models. Shapes: B rows, T tokens of the longest row, S tokens of the
longest second sequence, K positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.data.tokenized import TokenizedDataset

IGNORED = -100


@dataclass(frozen=True)
class RowShape:
    """What the host knows of a row: where its tokens are need not be asked of a device."""

    length: int
    trained: NDArray[np.int64]  # the places whose next token is trained, in rising order


@dataclass(frozen=True)
class Batch:
    """Right-padded rows. A label has the position of its own token (a causal model shifts them); -100 is not trained.

    Columns that the tokenised file does not have are None; see `TokenizedDataset`.
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    labels_BT: Tensor
    reference_B: Tensor | None = None  # float64; for objectives that compare with a reference, see `Objective`
    prompt_lengths_B: Tensor | None = None  # int64
    token_weights_BT: Tensor | None = None  # float32; 0 at padding
    row_labels_B: Tensor | None = None  # int64
    row_label_sets_BC: Tensor | None = None  # float32: 0 or 1
    row_weights_B: Tensor | None = None  # float32
    second_ids_BS: Tensor | None = None  # int64
    second_mask_BS: Tensor | None = None
    keep_K: Tensor | None = None  # see `trained_K`
    shared: Tensor | None = None  # what `Objective.shared` made of the whole step
    shapes: tuple[RowShape, ...] = ()  # of every row; see `row_shapes`
    rows_per_example: int = 1  # see `TokenizedDataset`
    first_row: int = 0  # how many rows of the step are in the micro-batches before it, in the order of their losses

    @property
    def targets_BT(self) -> Tensor:
        """The target of the logits at each position: the label of the next position; ignored at the last one."""
        nothing_B1 = torch.full_like(self.labels_BT[:, :1], IGNORED)
        return torch.cat([self.labels_BT[:, 1:], nothing_B1], dim=1)

    @property
    def trained_K(self) -> Tensor:
        """The K positions whose next token is trained in at least one row, in rising order.

        The output layer is the largest matrix of a small model, so it is applied only there. `collate` computes them on
        the host: reading their number from a device would wait until all its work is done.
        """
        if self.keep_K is not None:
            return self.keep_K
        return (self.targets_BT != IGNORED).any(dim=0).nonzero().squeeze(1)

    @property
    def row_shapes(self) -> Sequence[RowShape]:
        """One for each row. `collate` gives them; of a batch without them they are read from its tensors."""
        if self.shapes:
            return self.shapes
        targets = [row.nonzero().flatten().numpy() for row in (self.targets_BT != IGNORED).cpu()]
        return [RowShape(*both) for both in zip(self.attention_mask_BT.sum(dim=1).tolist(), targets, strict=True)]

    def rows(self, selected: slice) -> "Batch":
        """Some of the rows, with the same padding and the same positions to keep."""
        columns = {name for name, column in vars(self).items() if isinstance(column, Tensor | tuple)}
        names = columns - {"keep_K", "shared"}
        return replace(self, **{name: vars(self)[name][selected] for name in names})

    def to(self, device: torch.device) -> "Batch":
        """The same rows on `device`."""
        moved: dict[str, Any] = {name: one.to(device) for name, one in vars(self).items() if isinstance(one, Tensor)}
        return replace(self, **moved)


def epoch_order(seed: int, epoch: int, num_examples: int) -> list[int]:
    """A permutation of the rows that depends on the arguments only.

    RandomState's streams are frozen (NEP 19), so a job that resumes keeps its order under any version of numpy.
    """
    return [int(index) for index in np.random.RandomState([seed, epoch]).permutation(num_examples)]


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """The number of steps; the last batch may be smaller."""
    return -(-num_examples // batch_size)


def collate(dataset: TokenizedDataset, indices: Sequence[int], pad_id: int) -> Batch:
    """The rows at `indices`, in that order, with all columns of the dataset; tokens and labels are int64."""
    rows = [dataset.row(index) for index in indices]
    ids = [tokens for tokens, _ in rows]
    input_ids_BT = _padded(ids, pad_id, torch.int64)
    attention_mask_BT = _padded([np.ones_like(tokens) for tokens in ids], 0, torch.int64)
    labels_BT = _padded([np.where(trained, tokens, IGNORED) for tokens, trained in rows], IGNORED, torch.int64)
    batch = Batch(
        input_ids_BT,
        attention_mask_BT,
        labels_BT,
        prompt_lengths_B=_of_rows(dataset.prompt_lengths, indices, torch.int64),
        row_labels_B=_of_rows(dataset.row_labels, indices, torch.int64),
        row_label_sets_BC=_of_rows(dataset.row_label_sets, indices, torch.float32),
        row_weights_B=_of_rows(dataset.row_weights, indices, torch.float32),
        shapes=tuple(RowShape(len(tokens), np.flatnonzero(trained[1:])) for tokens, trained in rows),
        rows_per_example=dataset.rows_per_example,
    )
    if dataset.token_weights is not None:
        weights = _spans(dataset.token_weights, dataset.offsets, indices)
        batch = replace(batch, token_weights_BT=_padded(weights, 0, torch.float32))
    if dataset.second_tokens is not None and dataset.second_offsets is not None:
        second = _spans(dataset.second_tokens, dataset.second_offsets, indices)
        ids_BS = _padded(second, pad_id, torch.int64)
        mask_BS = _padded([np.ones_like(tokens) for tokens in second], 0, torch.int64)
        batch = replace(batch, second_ids_BS=ids_BS, second_mask_BS=mask_BS)
    return replace(batch, keep_K=batch.trained_K)


def _spans(values: NDArray[Any], offsets: NDArray[np.int64], indices: Sequence[int]) -> list[NDArray[Any]]:
    return [values[offsets[index] : offsets[index + 1]] for index in indices]


def _padded(rows: Sequence[NDArray[Any]], padding: int, dtype: torch.dtype) -> Tensor:
    """Rows of unequal length as one tensor, padded on the right."""
    padded = torch.full((len(rows), max(len(values) for values in rows)), padding, dtype=dtype)
    for row, values in enumerate(rows):
        padded[row, : len(values)] = torch.tensor(values, dtype=dtype)  # a copy, so that the dataset is not modified
    return padded


def _of_rows(column: NDArray[Any] | None, indices: Sequence[int], dtype: torch.dtype) -> Tensor | None:
    return None if column is None else torch.tensor(column[list(indices)], dtype=dtype)
