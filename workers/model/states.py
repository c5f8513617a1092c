"""The hidden states of a base for its inputs, whatever its kind: what heads read.

Shapes: B rows, T tokens, H hidden.
"""

from torch import Tensor
from transformers import PreTrainedModel

from service.recipes.tasks import BaseKind
from workers.tunings.base import Inputs


def hidden_states(model: PreTrainedModel, kind: BaseKind, inputs: Inputs) -> Tensor:
    """hidden_BTH of the tokens, without what a tuning puts before them; in the base's dtype."""
    if kind == "encoder":
        hidden_BTH: Tensor = model(**inputs.tensors).last_hidden_state
    else:
        hidden_BTH = model.base_model(
            **inputs.tensors, past_key_values=inputs.cache, use_cache=inputs.cache is not None
        ).last_hidden_state
    return hidden_BTH[:, inputs.num_before :]
