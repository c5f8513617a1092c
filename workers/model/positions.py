"""Positions of a decoder beside an encoder, where rows of unlike length are padded on the left.

Shapes: B rows, S positions of the longest row, V vocabulary.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel


def last_positions(lengths_B1: Tensor, size: int) -> Tensor:
    """mask_BS: 1 at each row's last positions."""
    return (torch.arange(size, device=lengths_B1.device) >= size - lengths_B1).long()


@torch.no_grad()
def check_decodes_together(model: PreTrainedModel, start_id: int) -> None:
    """Raises ValueError for a decoder that counts positions from the batch's beginning instead of a row's own.

    Rows that began later are padded on the left: what stands there must change nothing but the last bits.
    """
    start_11 = torch.tensor([[start_id]], device=model.device)
    alone_V, padded_V = (
        model(
            input_ids=start_11,
            decoder_input_ids=start_11.expand(1, size),
            decoder_attention_mask=last_positions(torch.ones_like(start_11), size),
        ).logits[0, -1]
        for size in (1, 3)
    )
    # Rounding is some steps of the format, an absolute position a good part of the logits: between them lies the root.
    allowed = torch.finfo(model.dtype).eps ** 0.5 * float(alone_V.abs().max())
    if not float((alone_V - padded_V).abs().max()) <= allowed:
        raise ValueError(
            f"the decoder of a {model.config.model_type} model counts positions from the beginning of a batch, so that "
            "rows of unlike length cannot be decoded together; take a model with relative positions, such as T5"
        )
