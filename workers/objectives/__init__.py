"""Which loss: one small file per objective, found here by the name that a job's `method.type` carries.

Knows tokens and logits; must not know which parameters move, optimizers, jobs or storage.
"""

from workers.objectives.base import Forward, Loss, Objective
from workers.objectives.supervised import Supervised

__all__ = ["OBJECTIVES", "Forward", "Loss", "Objective", "create_objective"]

OBJECTIVES: dict[str, type[Objective]] = {"supervised": Supervised}


def create_objective(name: str) -> Objective:
    """The objective of that name. Raises KeyError for a name that `service.domain.methods` does not offer either."""
    return OBJECTIVES[name]()
