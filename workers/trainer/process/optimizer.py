"""A job's own AdamW (Loshchilov & Hutter, 2019, arXiv 1711.05101): moments, clipping and learning rate.

The learning rate rises linearly over the warm-up, then falls linearly towards zero. Knows parameters by name only.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)
EPSILON = 1e-8
MAX_GRADIENT_NORM = 1.0
WARMUP = 0.05  # of all steps, at least one
MOMENT = "optimizer/"
_KEYS = ("step", "exp_avg", "exp_avg_sq")


class JobOptimizer:
    """No weight decay: it would pull the tuning's parameters towards zero, whatever the data says."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], learning_rate: float) -> None:
        self._parameters = parameters
        self._learning_rate = learning_rate
        self._adam = torch.optim.AdamW(
            parameters.values(), lr=learning_rate, betas=BETAS, eps=EPSILON, weight_decay=0.0, fused=True
        )

    def clip(self) -> Tensor:
        """Scales the gradients down to MAX_GRADIENT_NORM. Returns their norm before, on the device."""
        return torch.nn.utils.clip_grad_norm_(self._parameters.values(), MAX_GRADIENT_NORM)

    def drop_gradients(self) -> None:
        """Frees the gradients without a step."""
        self._adam.zero_grad(set_to_none=True)

    def learning_rate(self, step: int, total_steps: int) -> float:
        """The one of this step."""
        return self._learning_rate * learning_rate_factor(step, total_steps)

    def step(self, step: int, total_steps: int) -> None:
        """Updates the parameters by their clipped gradients, whose norm is finite, and frees the gradients."""
        for group in self._adam.param_groups:
            group["lr"] = self.learning_rate(step, total_steps)
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """The moments by parameter, for a snapshot; empty before the first step."""
        return {
            f"{MOMENT}{key}/{name}": self._adam.state[parameter][key]
            for name, parameter in self._parameters.items()
            if parameter in self._adam.state
            for key in _KEYS
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Loads what `state` returned; `tensors` may hold other names too."""
        for name, parameter in self._parameters.items():
            if f"{MOMENT}step/{name}" in tensors:
                saved = {key: tensors[f"{MOMENT}{key}/{name}"] for key in _KEYS}
                self._adam.state[parameter] = {
                    key: tensor.to(parameter.device, copy=True) for key, tensor in saved.items()
                }


def learning_rate_factor(step: int, total_steps: int) -> float:
    """The factor of the job's learning rate at `step` (1 to `total_steps`); in (0, 1].

    With w warm-up steps and n steps:  s / w  for s <= w,  (n + 1 - s) / (n + 1 - w)  after.
    It is 1 at step w and would be 0 one step after the last, so that no step has learning rate 0.
    """
    warmup_steps = max(1, round(WARMUP * total_steps))
    if step <= warmup_steps:
        return step / warmup_steps
    return (total_steps + 1 - step) / (total_steps + 1 - warmup_steps)
