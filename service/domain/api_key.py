"""An API key as admins see it in a list: without its secret, which is stored nowhere."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ListedKey:
    """`project` is the name of its project. Times are unix seconds; a revoked key stays in the list."""

    id: str
    name: str
    project_id: str
    project: str
    role: str
    created_at: int
    revoked_at: int | None = None
