"""Rows one behind the other in one row of tokens, without padding: where each begins, and attention within each.

Positions start again in every row, and every token attends to its own row only: a loop over rows of equal length, each
causal, never a mask of all tokens by all tokens. On CUDA a bfloat16 base takes torch's variable-length attention.
Which bases can is found by trying (`refusal`): models of transformers differ in what they hand on to their attention.
Shapes: B rows, T tokens of the longest row, S tokens of all rows, A heads, D width of a head, V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

NAME = "luthier_segments"  # of the attention below, among those of transformers
# Of a packed row's logits against those of the row alone, in their standard deviation; of a coarse format some steps.
TOLERANCE, STEPS = 1e-3, 8
LENGTHS = (5, 9, 9, 1, 7)  # of the rows that are tried


@dataclass(frozen=True)
class Segments:
    """Rows of these lengths, one behind the other: the longest first, so that those of equal length are neighbours."""

    lengths: tuple[int, ...]
    device: torch.device
    seen: list[int] = field(default_factory=list, compare=False)  # the layers that attended by them, in their order

    @cached_property
    def order(self) -> Sequence[int]:
        """The rows as they stand."""
        return sorted(range(len(self.lengths)), key=lambda row: -self.lengths[row])

    @cached_property
    def _ends(self) -> list[int]:
        return [0, *accumulate(self.lengths[row] for row in self.order)]

    @cached_property
    def begins(self) -> Sequence[int]:
        """Where each row begins."""
        begin_of = dict(zip(self.order, self._ends, strict=False))
        return [begin_of[row] for row in range(len(self.lengths))]

    @cached_property
    def ends(self) -> Tensor:
        """int32: 0, then where each row ends, as they stand (`cu_seq_q` of variable-length attention)."""
        return torch.tensor(self._ends, dtype=torch.int32).to(self.device, non_blocking=True)

    @cached_property
    def positions_1S(self) -> Tensor:
        """Of each token in its own row."""
        places = [torch.arange(self.lengths[row]) for row in self.order]
        return torch.cat(places)[None].to(self.device, non_blocking=True)

    def packed(self, padded: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
        """Tensors of rows that are each padded to `width`, as one row without padding and mask."""
        places = [torch.arange(self.lengths[row]) + row * width for row in self.order]
        places_S = torch.cat(places).to(self.device, non_blocking=True)
        return {
            name: tensor.flatten(0, 1).index_select(0, places_S)[None]
            for name, tensor in padded.items()
            if name != "attention_mask"
        }

    @cached_property
    def runs(self) -> Sequence[tuple[int, int, int]]:
        """(where it begins, how many rows, their length) of each run of neighbours of equal length."""
        runs, begin = [], 0
        for length, rows in groupby(self.lengths[row] for row in self.order):
            count = len(list(rows))
            runs.append((begin, count, length))
            begin += count * length
        return runs


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    segments: Segments,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """softmax(q k^T / sqrt(d)) v of each token over its own row up to itself, in the shape 1, S, A, D.

    An attention of transformers; `query`, `key`, `value` have the shape 1, A, S, D. Raises NotImplementedError for
    what it does not compute.
    """
    unknown = sorted(name for name, given in kwargs.items() if given is not None and name in _CHANGING)
    if dropout or softcap is not None or s_aux is not None or unknown:
        raise NotImplementedError("its attention has dropout, a soft cap, sinks or biases of positions")
    segments.seen.append(id(module))
    window = sliding_window if sliding_window and sliding_window < max(segments.lengths) else None
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        return _varlen(query, key, value, scaling, segments, window), None
    parts = [_run(query, key, value, scaling, run, window) for run in segments.runs]
    return torch.cat(parts)[None], None


_CHANGING = ("position_bias", "is_causal", "cache", "head_mask", "alibi")
AttentionInterface.register(NAME, attend)  # transformers makes no mask for an attention that it does not know


def _run(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, run: tuple[int, int, int], window: int | None
) -> Tensor:
    """Of some neighbours of equal length; of the shape tokens, A, D. In float32: the backward pass in bfloat16 takes a
    CPU 1.4 to 4 times as long."""
    begin, count, length = run

    def rows(states: Tensor) -> Tensor:
        _, heads, _, width = states.shape
        taken = states[0, :, begin : begin + count * length].reshape(heads, count, length, width)
        return taken.transpose(0, 1).float()

    mask = None if window is None or window >= length else _window(length, window, query.device)
    attended = scaled_dot_product_attention(
        rows(query),
        rows(key),
        rows(value),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended.transpose(1, 2).flatten(0, 1).to(query.dtype)


def _window(length: int, window: int, device: torch.device) -> Tensor:
    """Of one row's tokens by one row's tokens: itself and the `window` - 1 before it."""
    places = torch.arange(length, device=device)
    behind = places[:, None] - places[None, :]
    return (behind >= 0) & (behind < window)


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, segments: Segments, window: int | None
) -> Tensor:
    longest = max(segments.lengths)
    attended = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        segments.ends,
        segments.ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(attended, Tensor)
    return attended[None]


@contextmanager
def attending(model: PreTrainedModel) -> Iterator[None]:
    """Inside, `model` takes `segments` among its arguments and attends by them."""
    configs = {id(part.config): part.config for part in model.modules() if isinstance(part, PreTrainedModel)}
    before = {key: config._attn_implementation_internal for key, config in configs.items()}
    for config in configs.values():
        config._attn_implementation_internal = NAME
    try:
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]


def arguments(segments: Segments) -> dict[str, Any]:
    """What a model gets besides its packed tokens, inside `attending`."""
    return {"position_ids": segments.positions_1S, "segments": segments}


def refusal(model: PreTrainedModel) -> str:
    """Why rows for this base are padded and not packed; empty: they are packed. No tuning may be active.

    Found with a few rows, forward and backward: every layer must have attended by them, and the logits must be those of
    each row alone. Raises OutOfMemoryError: that says nothing about the base.
    """
    if model.config.get_text_config()._attn_implementation != "sdpa":
        return "transformers computes its attention in a way of its own"
    text = model.config.get_text_config()
    numbers = torch.arange(sum(LENGTHS)) * 7 % max(1, text.vocab_size - 8) + 4
    ids_1S = numbers.clamp(max=text.vocab_size - 1)[None].to(model.device)
    segments = Segments(LENGTHS, model.device)
    ids_1T = [ids_1S[:, begin : begin + length] for begin, length in zip(segments.begins, LENGTHS, strict=True)]
    embedded_1SH = model.get_input_embeddings()(ids_1S).detach().requires_grad_()
    try:
        with torch.enable_grad(), attending(model):
            packed_SV = model(inputs_embeds=embedded_1SH, use_cache=False, **arguments(segments)).logits[0].float()
            torch.autograd.grad(packed_SV.square().mean(), embedded_1SH)  # leaves no gradient in any parameter
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # as many kinds as there are families
        return f"its layers refuse rows one behind the other ({_first_line(error)})"
    if len(set(segments.seen)) != text.num_hidden_layers:
        return "its layers are not all attention that is told where rows begin"
    with torch.no_grad():
        alone = [model(input_ids=ids_1T[row], use_cache=False).logits[0].float() for row in segments.order]
    alone_SV = torch.cat(alone)
    limit = max(TOLERANCE, STEPS * torch.finfo(model.dtype).eps) * float(alone_SV.std())
    if not float((packed_SV.detach() - alone_SV).abs().max()) <= limit:
        return "a row's logits change with the rows before it"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
