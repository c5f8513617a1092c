"""Texts through a model with a head, or through an encoder alone: one forward pass for some of them at a time, between
two turns of the batcher.

Nothing is generated, so no row stays in memory between passes. Every pass has texts of one request and at most a
prefill's tokens: what other requests generate meanwhile waits for no longer than for a prompt. Has no HTTP.
Shapes: B rows, T tokens.
"""

from collections.abc import Sequence

import structlog
import torch
from torch.nn.utils.rnn import pad_sequence

from service.domain.errors import Unavailable
from workers.engines.embedded.batcher import PREFILL_TOKENS, WAITING_LIMIT, Batcher, GenerationFailed
from workers.model.adapters import Adapter, rows_use
from workers.model.head import Head
from workers.model.load import LoadedBase
from workers.model.states import hidden_states
from workers.tunings.base import Chunk, plain_inputs

log = structlog.get_logger()
TEXTS_LIMIT = 4 * WAITING_LIMIT  # that wait at a time; each is far less work than a sequence that is generated


class Reader:
    """Computes what heads return. Its passes run in the batcher's thread."""

    def __init__(self, base: LoadedBase, batcher: Batcher) -> None:
        self._base = base
        self._batcher = batcher
        self._num_waiting = 0

    async def values(self, rows: Sequence[Sequence[int]], adapter: Adapter | None, head: Head) -> list[list[float]]:
        """What the head returns for each row, with the adapter or of the base alone.

        Raises Unavailable, GenerationFailed.
        Cancelling it ends the work after the pass that runs.
        """
        if self._num_waiting + len(rows) > TEXTS_LIMIT:
            raise Unavailable("The engine is currently overloaded, please try again later.")
        self._num_waiting += len(rows)
        try:
            found: dict[int, list[float]] = {}
            for places in _passes([len(ids) for ids in rows]):
                some = await self._batcher.call(self._compute, [rows[place] for place in places], adapter, head)
                found |= zip(places, some, strict=True)
            return [found[place] for place in range(len(rows))]
        finally:
            self._num_waiting -= len(rows)

    @torch.inference_mode()
    def _compute(self, rows: Sequence[Sequence[int]], adapter: Adapter | None, head: Head) -> list[list[float]]:
        """One pass, in the thread."""
        device = self._base.device
        try:
            lengths_B = torch.tensor([len(ids) for ids in rows], device=device)
            ids_BT = pad_sequence(
                [torch.tensor(list(ids)) for ids in rows], batch_first=True, padding_value=self._base.pad_id
            ).to(device)
            mask_BT = (torch.arange(ids_BT.shape[1], device=device) < lengths_B[:, None]).long()
            with rows_use([adapter] * len(rows), device):
                chunk = Chunk(ids_BT, mask_BT, lengths_B)
                inputs = plain_inputs(chunk) if adapter is None else adapter.tuning.inputs(chunk)
                model = self._base.model if adapter is None else adapter.tuning.model
                hidden_BTH = hidden_states(model, self._base.kind, inputs)
            values: list[list[float]] = head.values(head.logits(hidden_BTH, mask_BT)).tolist()
        except Exception as error:
            self._batcher.counts.failures += 1
            log.error("reading.failed", exc_info=error)
            raise GenerationFailed("The engine failed to compute this response.", code="generation_failed") from error
        self._batcher.counts.prompt_tokens += sum(map(len, rows))
        return values


def _passes(lengths: Sequence[int]) -> list[list[int]]:
    """The places of the rows of each pass: similar lengths together, at most PREFILL_TOKENS padded tokens, or one."""
    passes: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        longest = lengths[passes[-1][0]] if passes else 0
        if not passes or (len(passes[-1]) + 1) * longest > PREFILL_TOKENS:
            passes.append([])
        passes[-1].append(place)
    return passes
