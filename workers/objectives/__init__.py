"""Which loss: one small file per objective, found here by its recipe's name. Its settings are in `service.recipes`.

Knows tokens and logits; must not know which parameters move, optimizers, jobs or storage.
"""

from service.recipes.objective import ObjectiveSettings
from workers.objectives.base import OBJECTIVES, Forward, Loss, Objective, Sampled, Sampler, SamplingObjective
from workers.objectives.logprobs import logprobs

__all__ = [
    "Forward",
    "Loss",
    "Objective",
    "Sampled",
    "Sampler",
    "SamplingObjective",
    "create_objective",
    "logprobs",
]


def create_objective(settings: ObjectiveSettings) -> Objective:
    """The objective of these settings. Raises ValueError where one of them is still "auto"."""
    return OBJECTIVES.find(type(settings))(settings)
