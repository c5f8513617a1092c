"""Which loss: one small file per objective, found by the class of its settings, which are in `service.recipes`.

Works on tokens and logits. Does not depend on the tuning, optimizers, jobs or storage.
"""

from service.recipes.objective import ObjectiveSettings
from workers.objectives.base import (
    OBJECTIVES,
    Forward,
    HeadObjective,
    Loss,
    Objective,
    Sampled,
    Sampler,
    SamplingObjective,
    TokenLosses,
    WholeFile,
)
from workers.objectives.logprobs import logprobs

__all__ = [
    "Forward",
    "HeadObjective",
    "Loss",
    "Objective",
    "Sampled",
    "Sampler",
    "SamplingObjective",
    "TokenLosses",
    "WholeFile",
    "create_objective",
    "logprobs",
]


def create_objective(settings: ObjectiveSettings) -> Objective:
    """The objective of these settings. Raises ValueError if one of them is still "auto"."""
    return OBJECTIVES.find(type(settings))(settings)
