"""A copy of the base for a tuning that changes the base's own weights: all that does not move is shared.

Knows models and names of parameters; must not know which tuning asks.
"""

import copy
from collections.abc import Callable

from transformers import PreTrainedModel

from workers.tunings.base import num_bytes
from workers.tunings.sites import untouched

Moves = Callable[[str], bool]  # by a parameter's name in the base


def private_copy(model: PreTrainedModel, moves: Moves) -> PreTrainedModel:
    """The untouched base with its own copies of the parameters that move, which may be trained; ties are kept.

    Every other parameter and every buffer is the base's own tensor. To drop the copy frees what it takes.
    """
    with untouched(model):
        frozen = [parameter for name, parameter in model.named_parameters() if not moves(name)]
        copied = copy.deepcopy(model, {id(tensor): tensor for tensor in [*frozen, *model.buffers()]})
    for name, parameter in copied.named_parameters():
        parameter.requires_grad_(moves(name))
    return copied


def private_bytes(model: PreTrainedModel, moves: Moves) -> int:
    """How much memory `private_copy` takes for parameters."""
    return num_bytes(parameter for name, parameter in model.named_parameters() if moves(name))
