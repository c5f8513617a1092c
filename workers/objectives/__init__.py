"""Which loss: one small file per objective, found here by the name that a job's `method.type` carries.

Knows tokens and logits; must not know which parameters move, optimizers, jobs or storage.
"""

from collections.abc import Mapping

from workers.objectives.base import Forward, Loss, Objective, Sampled, Sampler, SamplingObjective
from workers.objectives.dpo import Dpo
from workers.objectives.logprobs import logprobs
from workers.objectives.supervised import Supervised

__all__ = [
    "OBJECTIVES",
    "Forward",
    "Loss",
    "Objective",
    "Sampled",
    "Sampler",
    "SamplingObjective",
    "create_objective",
    "logprobs",
]

OBJECTIVES: dict[str, type[Supervised] | type[Dpo]] = {"supervised": Supervised, "dpo": Dpo}


def create_objective(name: str, settings: Mapping[str, float] | None = None) -> Objective:
    """The objective of that name with its own hyperparameters (dpo: beta), resolved.

    Raises KeyError for a name that `service.domain.methods` does not offer either.
    """
    return OBJECTIVES[name](**(settings or {}))
