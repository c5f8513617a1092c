"""Generation of rows together in one batch, which rows join and leave between any two tokens.

Handles tensors and tokens; does not depend on requests, text or threads (the embedded engine's `batcher` calls it from
one thread).

Why our own loop over the model: `generate()` of transformers runs a batch until its longest row ends, so a new row
would have to wait; its continuous batching packs all rows into one of shape (1, tokens), where rows cannot have
different adapters. Here every prompt is prefilled in pieces by itself, or with short ones of the same adapter: one
behind the other, or padded on the right. Then its part of the cache is padded on the left to the length of the
others, and all rows decode together.
What differs for encoder-decoders is in `workers.model.two_sided`.

Shapes: B rows, S cached positions of the longest row, T tokens of a prompt's piece, N some of the rows, V vocabulary.
"""

import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from workers.model.adapters import Adapter, rows_use
from workers.model.load import LoadedBase
from workers.model.positions import last_positions
from workers.model.row_cache import cache_of, joined, keep_rows, states
from workers.model.sampling import Sampling, Token, choose, score
from workers.model.segments import Segments, arguments, attending
from workers.tunings.base import Chunk, Inputs, plain_inputs

PIECE_TOKENS = (
    512  # of a prompt per forward pass: bounds the memory of a scored prompt's logits and of the attention mask
)


@dataclass(eq=False)
class BatchRow:
    """One sequence: its prompt, how its tokens are drawn, and those generated so far."""

    prompt: Sequence[int]
    sampling: Sampling
    adapter: Adapter | None = None
    num_top: int | None = None  # how many alternatives to score at every token; None scores nothing
    score_prompt: bool = False
    ends: bool = False  # with its prompt: no token follows, so that nothing of it is cached
    written: Sequence[int] = ()  # of an encoder-decoder: what the decoder has written before, and is scored
    generated: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("a row needs at least one prompt token")
        seed = self.sampling.seed
        self._random = random.Random(None if seed is None else seed % 2**64)  # Random ignores the sign of a seed

    def draw(self) -> float:
        """The row's next random number in [0, 1). With a seed it does not depend on the other rows."""
        return self._random.random()


def num_virtual_tokens(adapter: Adapter | None) -> int:
    """The number of positions of the context that the adapter takes."""
    return adapter.tuning.num_virtual_tokens if adapter else 0


@dataclass(frozen=True)
class Prefilled:
    """Rows whose prompt is computed. `scores` are those of the prompt from its second token on, if requested."""

    rows: Sequence[BatchRow]
    caches: Sequence[DynamicCache]
    logits_NV: Tensor
    scores: Sequence[Token]


@dataclass(frozen=True)
class Laid:
    """Prompts as the model gets them in one pass."""

    arguments: dict[str, Any]
    places: Sequence[tuple[int, int]]  # of each prompt: the row that it is in, and where its first token is in that


class DecodingBatch:
    """The rows in progress. If a method other than `prefill` raises, call `clear`: the rows cannot continue.

    Rows of the base and of adapters that mix rows share one batch. An adapter that does not mix them needs a batch of
    its own, made with `adapter`, which all its rows must have.
    """

    def __init__(self, base: LoadedBase, adapter: Adapter | None = None) -> None:
        self._base = base
        self._model = adapter.tuning.model if adapter else base.model
        self._device = base.device
        self.clear()

    def clear(self) -> None:
        """Drops all rows."""
        self.rows: list[BatchRow] = []
        self._caches: Sequence[DynamicCache] = ()  # the parts of the rows' cache; none without rows
        self._logits_BV = torch.empty(0)

    def lengths(self, row: BatchRow) -> tuple[int, ...]:
        """Positions before the row's next token in each part of the cache: virtual tokens, prompt, generated tokens."""
        return (num_virtual_tokens(row.adapter) + len(row.prompt) + len(row.generated),)

    @torch.inference_mode()
    def prefill(self, rows: Sequence[BatchRow]) -> Prefilled:
        """Computes the one prompt and adapter that `rows` share. Does not affect the rows in progress."""
        caches, logits_1V, scores = self._prompt(rows[0])
        for cache in caches:
            cache.batch_repeat_interleave(len(rows))
        return Prefilled(rows, caches, logits_1V.expand(len(rows), -1), scores)

    @torch.inference_mode()
    def prefill_all(self, prompts: Sequence[Sequence[BatchRow]]) -> list[Prefilled]:
        """`prefill` of each, in their order. Short prompts of one model go through it together."""
        found: dict[int, Prefilled] = {}
        for group in self._groups([rows[0] for rows in prompts]):
            chosen = [prompts[place] for place in group]
            together = self._together(chosen) if len(group) > 1 else [self.prefill(chosen[0])]
            found |= zip(group, together, strict=True)
        return [found[place] for place in range(len(prompts))]

    @torch.inference_mode()
    def join(self, *newcomers: Prefilled) -> None:
        """Adds the newcomers after the rows in progress."""
        everyone = [(self._caches, self._logits_BV)] if self.rows else []
        everyone += [(one.caches, one.logits_NV) for one in newcomers]
        self._caches = [joined(parts) for parts in zip(*(caches for caches, _ in everyone), strict=True)]
        self._logits_BV = torch.cat([logits_NV for _, logits_NV in everyone])
        self.rows = [*self.rows, *(row for one in newcomers for row in one.rows)]

    @torch.inference_mode()
    def sample(self) -> list[Token]:
        """Draws the next token of every row, in the order of `rows`, and adds it to `generated`."""
        samplings = [row.sampling for row in self.rows]
        generated = [row.generated for row in self.rows]
        draws = [0.0 if row.sampling.greedy else row.draw() for row in self.rows]
        ids = choose(self._logits_BV, samplings, generated, draws)
        tokens = self._scored([Token(id) for id in ids])
        for row, token in zip(self.rows, ids, strict=True):
            row.generated.append(token)
        return tokens

    @torch.inference_mode()
    def keep(self, rows: Collection[BatchRow]) -> None:
        """Drops every row that is not in `rows`, and padding that is no longer needed."""
        kept = [index for index, row in enumerate(self.rows) if row in rows]
        if len(kept) == len(self.rows):
            return
        if not kept:
            return self.clear()
        self.rows = [self.rows[index] for index in kept]
        kept_N = torch.tensor(kept, device=self._device)
        # After `sample` a row's newest token is not cached yet, so the slice is at most one position too long.
        for cache, lengths in zip(self._caches, zip(*map(self.lengths, self.rows), strict=True), strict=True):
            keep_rows(cache, kept_N, max(lengths))
        self._logits_BV = self._logits_BV.index_select(0, kept_N)

    @torch.inference_mode()
    def advance(self) -> None:
        """Computes every row's next logits from the token that `sample` drew for it."""
        if self.rows:
            self._logits_BV = self._next_logits()

    def _next_logits(self) -> Tensor:
        """logits_BV after the token that `sample` drew for each row, which joins the cache."""
        (cache,) = self._caches
        lengths = [self.lengths(row) for row in self.rows]
        lengths_B1 = torch.tensor(lengths, device=self._device)
        size = cache.get_seq_length() + 1
        padded = min(lengths) < (size,)
        with rows_use([row.adapter for row in self.rows], self._device):
            output = self._model(
                input_ids=torch.tensor([[row.generated[-1]] for row in self.rows], device=self._device),
                attention_mask=last_positions(lengths_B1, size) if padded else None,
                position_ids=lengths_B1 - 1,
                past_key_values=cache,
                logits_to_keep=1,
            )
        logits_BV: Tensor = output.logits[:, -1]
        return logits_BV

    def _prompt(self, row: BatchRow) -> tuple[Sequence[DynamicCache], Tensor, list[Token]]:
        """The cache of one row, the logits after the prompt, and the prompt's scores if the row requests them."""
        cache = DynamicCache()
        scores: list[Token] = []
        logits_TV = torch.empty(0)
        with rows_use([row.adapter], self._device):
            for start in range(0, len(row.prompt), PIECE_TOKENS):
                piece = row.prompt[start : start + PIECE_TOKENS]
                inputs = self._inputs(row, start, piece)
                cache = inputs.cache or cache
                keep = 0 if row.score_prompt else 1  # 0 means all in transformers
                logits_TV = self._model(**inputs.tensors, past_key_values=cache, logits_to_keep=keep).logits[0]
                targets = row.prompt[start + 1 : start + 1 + len(piece)]
                if row.score_prompt and targets:
                    scores += score(logits_TV[-len(piece) :][: len(targets)], targets, row.num_top or 0)
        return (cache,), logits_TV[-1:], scores

    def _packs(self, adapter: Adapter | None) -> bool:
        """Whether prompts go through the model one behind the other and not padded. Tried once, with gradients."""
        if adapter and not adapter.packs:
            return False
        with torch.inference_mode(mode=False):
            return not self._base.unpacked_because

    def _groups(self, firsts: Sequence[BatchRow]) -> list[list[int]]:
        """The places of rows that are prefilled together: of one adapter, at most PIECE_TOKENS; those that end with
        their prompts apart. Where they are padded, padding counts, and none is shorter than half of the longest."""
        groups: list[list[int]] = []
        longest_first = sorted(range(len(firsts)), key=lambda place: -len(firsts[place].prompt))
        for place in longest_first:
            row, length = firsts[place], len(firsts[place].prompt)
            packs = len(firsts) > 1 and self._packs(row.adapter)
            for group in groups:
                first = firsts[group[0]]
                width = len(first.prompt)
                if packs:
                    fits = sum(len(firsts[other].prompt) for other in group) + length <= PIECE_TOKENS
                else:
                    fits = width * (len(group) + 1) <= PIECE_TOKENS and width <= 2 * length
                alike = first.adapter is row.adapter and first.ends == row.ends
                if fits and alike and not num_virtual_tokens(row.adapter):
                    group.append(place)
                    break
            else:
                groups.append([place])
        return groups

    def _together(self, prompts: Sequence[Sequence[BatchRow]]) -> list[Prefilled]:
        """One behind the other, or padded on the right, which no token before it sees; then each has its own part of
        the cache."""
        firsts = [rows[0] for rows in prompts]
        lengths = [len(row.prompt) for row in firsts]
        packs, adapter = self._packs(firsts[0].adapter), firsts[0].adapter
        scored = any(row.score_prompt for row in firsts)
        cache = DynamicCache()
        with rows_use([adapter] * len(firsts), self._device):
            laid = self._packed(firsts, adapter) if packs else self._padded(firsts, adapter)
            with attending(self._model) if packs else nullcontext():
                if firsts[0].ends:
                    return self._scored_alone(prompts, laid)
                last_N = [(row, begin + length - 1) for (row, begin), length in zip(laid.places, lengths, strict=True)]
                with nullcontext() if scored else _only(*_columns(last_N, self._device), self._model):
                    logits_NKV = self._model(**laid.arguments, past_key_values=cache).logits
        found = []
        for place, (rows, length, (at, begin)) in enumerate(zip(prompts, lengths, laid.places, strict=True)):
            row, end = firsts[place], begin + length
            of_row = [(keys[at : at + 1], values[at : at + 1]) for keys, values in states(cache)]
            own = cache_of([(keys[:, :, begin:end], values[:, :, begin:end]) for keys, values in of_row])
            if len(rows) > 1:
                own.batch_repeat_interleave(len(rows))
            logits_1V = logits_NKV[at, end - 1][None] if scored else logits_NKV[0, place][None]
            targets = row.prompt[1:] if row.score_prompt else ()
            scores = score(logits_NKV[at, begin : end - 1], targets, row.num_top or 0) if targets else []
            found.append(Prefilled(rows, (own,), logits_1V.expand(len(rows), -1), scores))
        return found

    def _padded(self, firsts: Sequence[BatchRow], adapter: Adapter | None) -> Laid:
        ids_NT, mask_NT, lengths_N = self._collated(firsts)
        chunk = Chunk(ids_NT, None if bool(mask_NT.all()) else mask_NT, lengths_N)
        inputs = adapter.tuning.inputs(chunk) if adapter else plain_inputs(chunk)
        return Laid(inputs.tensors, [(row, 0) for row in range(len(firsts))])

    def _packed(self, firsts: Sequence[BatchRow], adapter: Adapter | None) -> Laid:
        ids_NT, mask_NT, lengths_N = self._collated(firsts)
        segments = Segments(tuple(len(row.prompt) for row in firsts), self._device)
        begins_N = torch.tensor(segments.begins, device=self._device)
        chunk = Chunk(ids_NT, mask_NT, lengths_N, begins_B=begins_N)
        inputs = adapter.tuning.inputs(chunk) if adapter else plain_inputs(chunk)
        tensors = segments.packed(inputs.tensors, ids_NT.shape[1])
        return Laid(tensors | arguments(segments), [(0, begin) for begin in segments.begins])

    def _collated(self, firsts: Sequence[BatchRow]) -> tuple[Tensor, Tensor, Tensor]:
        """ids_NT and mask_NT of prompts that are padded on the right, and their lengths_N."""
        longest = max(len(row.prompt) for row in firsts)
        lengths_N = torch.tensor([len(row.prompt) for row in firsts], device=self._device)
        ids_NT = torch.tensor(
            [[*row.prompt, *[0] * (longest - len(row.prompt))] for row in firsts], device=self._device
        )
        return ids_NT, (torch.arange(longest, device=self._device) < lengths_N[:, None]).long(), lengths_N

    def _scored_alone(self, prompts: Sequence[Sequence[BatchRow]], laid: Laid) -> list[Prefilled]:
        """Rows that end with their prompts: no cache, and no padding through the output layer."""
        lengths = [len(rows[0].prompt) for rows in prompts]
        of_rows = torch.tensor([row for row, _ in laid.places], device=self._device)
        rows_K = torch.repeat_interleave(of_rows, torch.tensor(lengths, device=self._device))
        places_K = torch.cat(
            [
                torch.arange(begin, begin + length, device=self._device)
                for (_, begin), length in zip(laid.places, lengths, strict=True)
            ]
        )
        with _only(rows_K, places_K, self._model):
            logits_KV = self._model(**laid.arguments, use_cache=False).logits[0]
        found = []
        for rows, logits_TV in zip(prompts, torch.split(logits_KV, lengths), strict=True):
            row = rows[0]
            targets = row.prompt[1:] if row.score_prompt else ()
            scores = score(logits_TV[:-1], targets, row.num_top or 0) if targets else []
            found.append(Prefilled(rows, (), logits_TV[-1:].expand(len(rows), -1), scores))
        return found

    def _inputs(self, row: BatchRow, start: int, piece: Sequence[int]) -> Inputs:
        ids_1T = torch.tensor([list(piece)], device=self._device)
        chunk = Chunk(ids_1T, None, torch.tensor([len(row.prompt)], device=self._device), offset=start)
        return row.adapter.tuning.inputs(chunk) if row.adapter else plain_inputs(chunk)

    def _scored(self, tokens: list[Token]) -> list[Token]:
        wanting = [index for index, row in enumerate(self.rows) if row.num_top is not None]
        if wanting:
            num_top = max(row.num_top or 0 for row in self.rows)
            logits_NV = self._logits_BV[torch.tensor(wanting, device=self._device)]
            scores = score(logits_NV, [tokens[index].id for index in wanting], num_top)
            for index, token in zip(wanting, scores, strict=True):
                tokens[index] = Token(token.id, token.logprob, token.top[: self.rows[index].num_top])
        return tokens


def _columns(pairs: Sequence[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    firsts, seconds = zip(*pairs, strict=True)
    return torch.tensor(firsts, device=device), torch.tensor(seconds, device=device)


@contextmanager
def _only(rows_N: Tensor, places_N: Tensor, model: PreTrainedModel) -> Iterator[None]:
    """While the block lasts, these positions of these rows alone go through the output layer: logits_1NV."""
    layer: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    hook = layer.register_forward_pre_hook(lambda _, given: (given[0][rows_N, places_N][None], *given[1:]))
    try:
        yield
    finally:
        hook.remove()
