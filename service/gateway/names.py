"""What the name of a model in a request means: which model serves it, and under which name engines know that one.

`service.operations.models` reads it from the database; here are the results and where they are kept until the next
commit.
"""

from dataclasses import dataclass

from service.db.until_commit import UntilCommit
from service.domain.model import TaskName
from service.domain.model_alias import ModelAlias, Role
from service.recipes.base import Serving


@dataclass(frozen=True)
class ResolvedModel:
    """The model's name for engines, and what the engines of its base can do; `tuning` is None for a base.

    `task` is what it is for. `alias` is the model alias that the caller said, and `role` which of its models this is;
    None and "model" without.
    """

    name_for_engine: str
    base_id: str
    tuning: str | None
    serving: Serving
    task: TaskName
    alias: str | None = None
    role: Role = "model"


@dataclass(frozen=True)
class Meaning:
    """What a name stands for; of a model alias both models, each None where it cannot be called any more."""

    model: ResolvedModel | None
    alias: ModelAlias | None = None
    candidate: ResolvedModel | None = None


Names = UntilCommit[tuple[str, str], Meaning]  # by the caller's project and the name
