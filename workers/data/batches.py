"""Which rows go into which step, and a step's rows as tensors.

Knows numbers only. Shapes: B rows, T tokens of the longest row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from workers.data.tokenized import TokenizedDataset

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Right-padded rows. Labels stand at their own token's place (a causal model shifts them); -100 is not trained."""

    input_ids_BT: torch.Tensor
    attention_mask_BT: torch.Tensor
    labels_BT: torch.Tensor
    reference_B: torch.Tensor | None = None  # float64; for objectives that compare with a reference, see `Objective`

    @property
    def targets_BT(self) -> torch.Tensor:
        """What the logits at each position should say: the label of the next one; at the last position nothing."""
        nothing_B1 = torch.full_like(self.labels_BT[:, :1], IGNORED)
        return torch.cat([self.labels_BT[:, 1:], nothing_B1], dim=1)

    def to(self, device: torch.device) -> "Batch":
        """The same rows on that device."""
        return Batch(
            self.input_ids_BT.to(device),
            self.attention_mask_BT.to(device),
            self.labels_BT.to(device),
            None if self.reference_B is None else self.reference_B.to(device),
        )


def epoch_order(seed: int, epoch: int, num_examples: int) -> list[int]:
    """A permutation of the rows that depends on the arguments only.

    RandomState's streams are frozen (NEP 19), so that no version of numpy reorders a job that goes on.
    """
    return [int(index) for index in np.random.RandomState([seed, epoch]).permutation(num_examples)]


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """The last, smaller batch is a step too."""
    return -(-num_examples // batch_size)


def collate(dataset: TokenizedDataset, indices: Sequence[int], pad_id: int) -> Batch:
    """The rows at `indices`, in that order, int64."""
    rows = [dataset.row(index) for index in indices]
    shape = (len(rows), max(len(tokens) for tokens, _ in rows))
    input_ids_BT = torch.full(shape, pad_id, dtype=torch.int64)
    attention_mask_BT = torch.zeros(shape, dtype=torch.int64)
    labels_BT = torch.full(shape, IGNORED, dtype=torch.int64)
    for row, (tokens, trained) in enumerate(rows):
        ids_T = torch.from_numpy(tokens.astype(np.int64))
        input_ids_BT[row, : len(tokens)] = ids_T
        attention_mask_BT[row, : len(tokens)] = 1
        labels_BT[row, : len(tokens)] = ids_T.masked_fill(torch.from_numpy(trained == 0), IGNORED)
    return Batch(input_ids_BT, attention_mask_BT, labels_BT)
