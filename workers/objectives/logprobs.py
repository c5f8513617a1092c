"""The log-probability of rows: the sum of log p(token | tokens before) over each row's trained tokens.

Shapes: B rows, T tokens, K positions.
"""

import torch
from torch import Tensor

from workers.data.batches import IGNORED, Batch
from workers.objectives.base import Forward


def logprobs(forward: Forward, batch: Batch) -> Tensor:
    """logprobs_B, in nats. float64, since small differences of long sums matter."""
    return -forward.token_losses(batch).losses_BK.sum(dim=1, dtype=torch.float64)


def mean_logprobs(forward: Forward, batch: Batch) -> Tensor:
    """logprobs_B per trained token, in nats; float64."""
    return logprobs(forward, batch) / trained_lengths(batch)


def trained_lengths(batch: Batch) -> Tensor:
    """lengths_B: the number of each row's trained tokens, at least 1."""
    return (batch.targets_BT != IGNORED).sum(dim=1).clamp(min=1)
