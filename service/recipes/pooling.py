"""Which vector stands for a whole text, for objectives that read one. Its tensors are in `workers.model.head`."""

from typing import Literal

from service.domain.errors import InvalidRequest
from service.recipes.base import Base

Pooling = Literal["last", "cls", "mean"]


def check_pooling(pooling: Pooling | None, base: Base, method: str) -> None:
    """Raises InvalidRequest for a vector that says nothing of the text on a base of this kind."""
    if pooling == "cls" and base.kind == "causal":
        raise InvalidRequest(
            f"'{base.id}' reads from left to right, so that the first token's state says nothing of the text: use "
            "'last' or 'mean', or leave 'pooling' out.",
            param=f"method.{method}.hyperparameters.pooling",
        )
