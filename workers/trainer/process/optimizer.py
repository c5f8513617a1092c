"""A job's own AdamW (Loshchilov & Hutter, 2019, arXiv 1711.05101): moments, clipping and learning rate are its alone.

Knows parameters by name; must not know what they are for.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from workers.trainer.process.schedule import learning_rate_factor

BETAS = (0.9, 0.999)
EPSILON = 1e-8
MAX_GRADIENT_NORM = 1.0
MOMENT = "optimizer/"
_KEYS = ("step", "exp_avg", "exp_avg_sq")


class JobOptimizer:
    """No weight decay: an adapter that decayed would drift away from the base that it corrects."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], learning_rate: float) -> None:
        self._parameters = parameters
        self._learning_rate = learning_rate
        self._adam = torch.optim.AdamW(
            parameters.values(), lr=learning_rate, betas=BETAS, eps=EPSILON, weight_decay=0.0, fused=True
        )

    def clip(self) -> Tensor:
        """Shortens the gradients where they are too long. Returns their norm before, still on the device."""
        return torch.nn.utils.clip_grad_norm_(self._parameters.values(), MAX_GRADIENT_NORM)

    def step(self, step: int, total_steps: int) -> None:
        """Moves the parameters along their clipped gradients, whose norm is finite, and forgets these."""
        for group in self._adam.param_groups:
            group["lr"] = self._learning_rate * learning_rate_factor(step, total_steps)
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
        """Takes over what `state` gave; `tensors` may hold other things too."""
        for name, parameter in self._parameters.items():
            if f"{MOMENT}step/{name}" in tensors:
                saved = {key: tensors[f"{MOMENT}{key}/{name}"] for key in _KEYS}
                self._adam.state[parameter] = {
                    key: tensor.to(parameter.device, copy=True) for key, tensor in saved.items()
                }
