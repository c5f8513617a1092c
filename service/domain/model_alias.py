"""A model alias: a name of a project's that stands for a model and can be moved to another one.

Not to be confused with aliases of bases, which the operator sets for all projects (`service.operations.aliases`). Which
of an alias' two models serves a request is decided here, without a database.
"""

import re
import secrets
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

ALIAS_LIMIT = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Action = Literal["created", "updated", "promoted", "rolled_back", "deleted"]
Role = Literal["model", "candidate"]


@dataclass(frozen=True)
class Candidate:
    """A second model of an alias, which serves a `weight` (between 0 and 1) of the requests."""

    model: str
    weight: float


@dataclass(frozen=True)
class ModelAlias:
    """One row. `previous_model` is what it stood for before `model`; None for one that was never moved."""

    name: str
    project_id: str
    model: str
    candidate: Candidate | None
    previous_model: str | None
    created_at: int
    updated_at: int

    @property
    def models(self) -> list[str]:
        """Those that it may send a request to now."""
        return [self.model] if self.candidate is None else [self.model, self.candidate.model]


@dataclass(frozen=True)
class AliasChange:
    """What an alias stood for after a change, and whose key made it; `key_name` is the key's name at that time."""

    id: str
    project_id: str
    alias: str
    action: Action
    model: str
    candidate: Candidate | None
    key_id: str
    key_name: str
    created_at: int


def is_alias_name(text: str) -> bool:
    """Whether a model alias may have this name: one segment of a path, and never a tuned model's name."""
    return len(text) <= ALIAS_LIMIT and _NAME.fullmatch(text) is not None


def choose(alias: ModelAlias, end_user: str | None) -> Role:
    """Which of the alias' models serves a request: one of them, decided once.

    `end_user` is what the request says about who asks. The same one always gets the same model of a pair, also when the
    weight grows: its position u = hash(candidate, end user) / 2^64 is uniform in [0, 1), and u < weight is the
    candidate. Without one, u is drawn for each request.
    """
    if alias.candidate is None:
        return "model"
    if end_user is None:
        position = secrets.randbits(64)
    else:
        key = f"{alias.project_id}\0{alias.name}\0{alias.candidate.model}\0{end_user}"
        position = int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    return "candidate" if position < alias.candidate.weight * 2.0**64 else "model"
