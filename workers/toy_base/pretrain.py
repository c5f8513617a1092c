"""Pre-training: a small Llama learns to predict the next token of the lessons.

Works on token ids only. Shapes: B rows, T tokens, V vocabulary.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

# Warm-up, then a cosine down to this share of the peak.
FINAL_LEARNING_RATE_SHARE = 0.1
EVALUATION_ROWS = 16


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    num_steps: int = 1000
    batch_tokens: int = 4096
    # Short rows are cheap, and most data for tuning is short; the long ones train the later positions.
    row_tokens: tuple[int, ...] = (256, 256, 256, 1024)
    peak_learning_rate: float = 3e-3
    warmup_steps: int = 50
    weight_decay: float = 0.1
    max_gradient_norm: float = 1.0


def create_model(config: LlamaConfig, seed: int) -> LlamaForCausalLM:
    """A model whose random weights depend on `seed` only."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def pretrain(
    model: LlamaForCausalLM, epochs: Iterator[list[int]], schedule: Schedule, report: Callable[[int, float], None]
) -> None:
    """Train `model` in place with AdamW.

    `epochs` gives the token ids of one epoch after the other, without end; `report` is called with every step
    (from 0) and its loss.
    """
    optimizer = torch.optim.AdamW(_groups(model, schedule), betas=(0.9, 0.95))
    batches = _batches(epochs, schedule)
    model.train()
    for step in range(schedule.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, schedule)
        loss = next_token_loss(model, next(batches))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.max_gradient_norm)
        optimizer.step()
        optimizer.zero_grad()
        report(step, loss.item())
    model.train(False)


def next_token_loss(model: LlamaForCausalLM, tokens_BT: Tensor) -> Tensor:
    """Mean negative log-likelihood of every token but each row's first, in nats.

    Matrix products in bfloat16, which is twice as fast where the processor supports it.
    """
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits_BTV = model(input_ids=tokens_BT, use_cache=False).logits
    return cross_entropy(logits_BTV[:, :-1].flatten(0, 1).float(), tokens_BT[:, 1:].flatten())


@torch.no_grad()
def mean_loss(model: LlamaForCausalLM, tokens: list[int], row_tokens: int) -> float:
    """The same loss over a whole text, cut into rows of `row_tokens`; a shorter rest is left out."""
    num_rows = len(tokens) // row_tokens
    rows_BT = torch.tensor(tokens[: num_rows * row_tokens]).view(num_rows, row_tokens)
    parts = torch.split(rows_BT, EVALUATION_ROWS)
    return float(sum(next_token_loss(model, part).item() * len(part) for part in parts)) / num_rows


def _batches(epochs: Iterator[list[int]], schedule: Schedule) -> Iterator[Tensor]:
    size = schedule.batch_tokens
    row_tokens = itertools.cycle(schedule.row_tokens)
    waiting: list[int] = []
    for tokens in epochs:
        waiting += tokens
        whole = len(waiting) // size * size
        for start in range(0, whole, size):
            yield torch.tensor(waiting[start : start + size]).view(-1, next(row_tokens))
        del waiting[:whole]


def _learning_rate(step: int, schedule: Schedule) -> float:
    if step < schedule.warmup_steps:
        return schedule.peak_learning_rate * (step + 1) / schedule.warmup_steps
    progress = (step - schedule.warmup_steps) / (schedule.num_steps - schedule.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return schedule.peak_learning_rate * (FINAL_LEARNING_RATE_SHARE + (1 - FINAL_LEARNING_RATE_SHARE) * cosine)


def _groups(model: LlamaForCausalLM, schedule: Schedule) -> list[dict[str, object]]:
    """Weight decay for matrices, none for the scales of the norms."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    scales = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    return [{"params": matrices, "weight_decay": schedule.weight_decay}, {"params": scales, "weight_decay": 0.0}]
