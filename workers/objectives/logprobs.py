"""The log-probability of rows: the sum of log p(token | tokens before) over each row's trained tokens.

Shapes: B rows, T tokens, K kept positions, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from workers.data.batches import IGNORED, Batch
from workers.objectives.base import Forward


def logprobs(forward: Forward, batch: Batch) -> Tensor:
    """logprobs_B, in nats. float64, since small differences of long sums matter."""
    targets_BT = batch.targets_BT
    keep_K = batch.trained_K
    targets_BK = targets_BT[:, keep_K]
    logits_BKV = forward.logits(batch, keep_K)
    losses = cross_entropy(
        logits_BKV.flatten(0, 1).float(), targets_BK.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return -losses.view_as(targets_BK).sum(dim=1, dtype=torch.float64)


def mean_logprobs(forward: Forward, batch: Batch) -> Tensor:
    """logprobs_B per trained token, in nats; float64."""
    return logprobs(forward, batch) / trained_lengths(batch)


def trained_lengths(batch: Batch) -> Tensor:
    """lengths_B: the number of each row's trained tokens, at least 1."""
    return (batch.targets_BT != IGNORED).sum(dim=1).clamp(min=1)
