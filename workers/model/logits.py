"""The logits of a base for whole rows, whatever its kind: what objectives learn from and what is scored.

Shapes: B rows, T tokens of the sequence that is predicted, K kept positions, V vocabulary.
"""

from torch import Tensor
from transformers import PreTrainedModel

from workers.tunings.base import Inputs


def next_logits(model: PreTrainedModel, inputs: Inputs, keep_K: Tensor, decoder_ids_BT: Tensor | None = None) -> Tensor:
    """logits_BKV of the next token at the positions `keep_K`, which do not count what a tuning puts before the tokens.

    With `decoder_ids_BT` the base is an encoder-decoder: `inputs` are what its encoder reads, and the positions are the
    decoder's. Its rows are padded on the right, which a decoder does not see from the left.
    """
    if decoder_ids_BT is not None:
        whole_BTV: Tensor = model(**inputs.tensors, decoder_input_ids=decoder_ids_BT, use_cache=False).logits
        return whole_BTV[:, keep_K]  # almost all are kept, and these models cannot be asked for some
    logits_BKV: Tensor = model(
        **inputs.tensors,
        past_key_values=inputs.cache,
        use_cache=inputs.cache is not None,
        logits_to_keep=keep_K + inputs.num_before,
    ).logits
    return logits_BKV
