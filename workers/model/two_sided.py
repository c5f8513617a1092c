"""Generation with an encoder-decoder: the encoder reads each prompt once, then all rows' decoders write together.

A row's cache has two parts: the decoder's own positions, and what the encoder made of the prompt, as each layer attends
to it. Both are padded on the left to the longest row of the batch. `workers.model.generate` has the rest.
Shapes: B rows, S positions of the longest row in one part, T decoder tokens, H hidden, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from workers.model.adapters import Adapter, rows_use
from workers.model.generate import BatchRow, DecodingBatch, num_virtual_tokens
from workers.model.load import LoadedBase
from workers.model.positions import last_positions
from workers.model.sampling import Token, score
from workers.tunings.base import Chunk, plain_inputs


def batch_for(base: LoadedBase, adapter: Adapter | None = None) -> DecodingBatch:
    """An empty batch for a base of any kind that writes text; `adapter` as in `DecodingBatch`."""
    return TwoSidedBatch(base, adapter) if base.kind == "encoder-decoder" else DecodingBatch(base, adapter)


class TwoSidedBatch(DecodingBatch):
    """See `DecodingBatch`. Of a row the scored prompt is what it has `written` already."""

    def __init__(self, base: LoadedBase, adapter: Adapter | None = None) -> None:
        assert base.text.decoder_start_id is not None, "an encoder-decoder"
        self._start_id = base.text.decoder_start_id
        super().__init__(base, adapter)

    def lengths(self, row: BatchRow) -> tuple[int, ...]:
        written = 1 + len(row.written) + len(row.generated)
        return written, num_virtual_tokens(row.adapter) + len(row.prompt)

    def _groups(self, firsts: Sequence[BatchRow]) -> list[list[int]]:
        """Each alone."""
        return [[place] for place in range(len(firsts))]

    def _prompt(self, row: BatchRow) -> tuple[Sequence[DynamicCache], Tensor, list[Token]]:
        caches = (DynamicCache(), DynamicCache())
        ids_1S = torch.tensor([list(row.prompt)], device=self._device)
        chunk = Chunk(ids_1S, None, torch.tensor([len(row.prompt)], device=self._device))
        with rows_use([row.adapter], self._device):
            inputs = row.adapter.tuning.inputs(chunk) if row.adapter else plain_inputs(chunk)
            logits_TV: Tensor = self._model(
                **inputs.tensors,
                decoder_input_ids=torch.tensor([[self._start_id, *row.written]], device=self._device),
                past_key_values=EncoderDecoderCache(*caches),
                use_cache=True,
            ).logits[0]
        scored = row.score_prompt and len(row.written) > 0
        return caches, logits_TV[-1:], score(logits_TV[:-1], row.written, row.num_top or 0) if scored else []

    def _next_logits(self) -> Tensor:
        written_B1, read_B1 = (
            torch.tensor(lengths, device=self._device)[:, None]
            for lengths in zip(*(self.lengths(row) for row in self.rows), strict=True)
        )
        own, of_prompt = self._caches
        size, read = own.get_seq_length() + 1, of_prompt.get_seq_length()
        hidden_size = self._model.config.get_text_config().hidden_size
        nothing_BSH = torch.zeros(1, 1, 1, device=self._device).expand(len(self.rows), read, hidden_size)
        with rows_use([row.adapter for row in self.rows], self._device):
            output = self._model(
                encoder_outputs=(nothing_BSH,),  # says how long the prompts are; the cache has what they became
                attention_mask=last_positions(read_B1, read),
                decoder_input_ids=torch.tensor([[row.generated[-1]] for row in self.rows], device=self._device),
                decoder_attention_mask=last_positions(written_B1, size),
                past_key_values=EncoderDecoderCache(own, of_prompt),
                use_cache=True,
            )
        logits_BV: Tensor = output.logits[:, -1]
        return logits_BV
