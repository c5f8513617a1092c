"""What a tuning makes of tokens, as trainer and engine ask it."""

from collections.abc import Sequence

from torch import Tensor, no_grad, ones_like, tensor

from workers.tunings import Tuning
from workers.tunings.base import Chunk


def tuned_logits(tuning: Tuning, ids_BT: Tensor, mask_BT: Tensor, prompt_lengths: Sequence[int] = ()) -> Tensor:
    """logits_BTV after every token, with an active tuning; without lengths every token is of a prompt."""
    lengths_B = tensor(prompt_lengths) if prompt_lengths else mask_BT.sum(dim=1)
    inputs = tuning.inputs(Chunk(ids_BT, mask_BT, lengths_B))
    logits_BTV: Tensor = tuning.model(**inputs.tensors, past_key_values=inputs.cache).logits
    return logits_BTV[:, inputs.num_before :]


@no_grad()
def active_logits(tuning: Tuning, ids_BT: Tensor) -> Tensor:
    """logits_BTV after every token of rows without padding, with a tuning that is active only meanwhile."""
    tuning.activate()
    try:
        return tuned_logits(tuning, ids_BT, ones_like(ids_BT))
    finally:
        tuning.deactivate()
