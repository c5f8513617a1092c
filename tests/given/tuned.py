"""What a tuning makes of tokens, as trainer and engine ask it."""

from collections.abc import Sequence

from torch import Tensor, int64, no_grad, ones, ones_like, tensor

from tests.given.encoder_decoders import START, shifted
from workers.model.adapters import Adapter, rows_use
from workers.model.load import LoadedBase
from workers.model.states import hidden_states
from workers.tunings import Tuning
from workers.tunings.base import Chunk


def tuned_logits(tuning: Tuning, ids_BT: Tensor, mask_BT: Tensor, prompt_lengths: Sequence[int] = ()) -> Tensor:
    """logits_BTV after every token, with an active tuning; without lengths every token is of a prompt.

    Of an encoder-decoder the logits of the same tokens: the encoder has read them, and the decoder writes them again.
    """
    lengths_B = tensor(prompt_lengths) if prompt_lengths else mask_BT.sum(dim=1)
    inputs = tuning.inputs(Chunk(ids_BT, mask_BT, lengths_B))
    if tuning.model.config.is_encoder_decoder:
        written_BTV: Tensor = tuning.model(**inputs.tensors, decoder_input_ids=shifted(ids_BT)).logits
        return written_BTV
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


@no_grad()
def logits_behind(tuning: Tuning, prompt: Sequence[int], written: Sequence[int]) -> Tensor:
    """logits_KV after the prompt, and after each of the tokens behind it, by one pass without a cache."""
    tuning.activate()
    try:
        if tuning.model.config.is_encoder_decoder:
            inputs = tuning.inputs(Chunk(tensor([list(prompt)]), None, tensor([len(prompt)])))
            logits_TV: Tensor = tuning.model(**inputs.tensors, decoder_input_ids=tensor([[START, *written]])).logits[0]
            return logits_TV
        whole = tensor([[*prompt, *written]])
        return tuned_logits(tuning, whole, ones_like(whole), [len(prompt)])[0, len(prompt) - 1 :]
    finally:
        tuning.deactivate()


@no_grad()
def classified(adapter: Adapter, base: LoadedBase, ids: Sequence[int]) -> list[float]:
    """What the head of an attached adapter returns of one row, as an engine calls it."""
    assert adapter.head is not None
    with rows_use([adapter], base.device):
        chunk = Chunk(tensor([list(ids)]), None, tensor([len(ids)]))
        hidden_1TH = hidden_states(adapter.tuning.model, base.kind, adapter.tuning.inputs(chunk))
        logits_1C = adapter.head.logits(hidden_1TH, ones(1, len(ids), dtype=int64))
    values: list[float] = adapter.head.values(logits_1C)[0].tolist()
    return values
