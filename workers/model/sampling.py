"""From logits to the next token of every row: penalties, temperature, nucleus, one draw per row, log-probabilities.

A row's token depends on its own logits and random number only, never on other rows. Independent of requests.
Shapes: B rows, N rows or positions to score, V vocabulary, K most likely tokens, G blocks of W tokens.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

GREEDY_BELOW = 1e-5  # a temperature that divides float32 logits to infinity means greedy, as in vLLM
BLOCK_TOKENS = 256
BELOW_ONE = 1 - 2.0**-40
LOWEST_LOGPROB = -9999.0  # OpenAI's value for an impossible token; JSON has no infinity


@dataclass(frozen=True)
class Sampling:
    """How the tokens of one row are drawn. `temperature` 0 is greedy; without a `seed` every run differs."""

    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW


@dataclass(frozen=True)
class Token:
    """A token with its log-probability before penalties and temperature, if requested."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()  # the most likely tokens at this position, most likely first


def choose(
    logits_BV: Tensor, samplings: Sequence[Sampling], generated: Sequence[Sequence[int]], draws: Sequence[float]
) -> list[int]:
    """The next token of every row; `generated` has its tokens so far, `draws` a number in [0, 1) for it."""
    logits_BV = _penalised(logits_BV, samplings, generated)
    sampled = [index for index, sampling in enumerate(samplings) if not sampling.greedy]
    if len(sampled) == len(samplings):
        return [int(token) for token in _draw(logits_BV, samplings, draws).tolist()]
    tokens_B = _most_likely(logits_BV)
    if sampled:
        rows_N = torch.tensor(sampled, device=logits_BV.device)
        chosen = [samplings[index] for index in sampled]
        tokens_B[rows_N] = _draw(logits_BV[rows_N], chosen, [draws[index] for index in sampled])
    return [int(token) for token in tokens_B.tolist()]


def score(logits_NV: Tensor, tokens: Sequence[int], num_top: int) -> list[Token]:
    """The log-probability of each token under its row of logits, with the `num_top` most likely ones."""
    logprobs_NV = torch.log_softmax(logits_NV.float(), dim=-1)
    tokens_N1 = torch.tensor(tokens, device=logits_NV.device)[:, None]
    own = _finite(logprobs_NV.gather(1, tokens_N1)[:, 0]).tolist()
    top_NK = logprobs_NV.topk(num_top, dim=-1)
    tops = [
        tuple(zip(ids, values, strict=True))
        for ids, values in zip(top_NK.indices.tolist(), _finite(top_NK.values).tolist(), strict=True)
    ]
    return [Token(token, logprob, top) for token, logprob, top in zip(tokens, own, tops, strict=True)]


def _finite(logprobs: Tensor) -> Tensor:
    """As JSON can have them: NaN of a broken model, and what has no probability, are the lowest."""
    return torch.nan_to_num(logprobs, nan=LOWEST_LOGPROB, neginf=LOWEST_LOGPROB).clamp(min=LOWEST_LOGPROB)


def _penalised(logits_BV: Tensor, samplings: Sequence[Sampling], generated: Sequence[Sequence[int]]) -> Tensor:
    """OpenAI's formula, on generated tokens: logit - count * frequency_penalty - (count > 0) * presence_penalty."""
    wanted = any(sampling.frequency_penalty or sampling.presence_penalty for sampling in samplings)
    logits_BV = logits_BV.to(torch.float32, copy=wanted)
    if not wanted:
        return logits_BV
    for logits_V, sampling, tokens in zip(logits_BV, samplings, generated, strict=True):
        if tokens and (sampling.frequency_penalty or sampling.presence_penalty):
            counts = Counter(tokens)
            seen_N = torch.tensor(list(counts), device=logits_V.device)
            counts_N = torch.tensor(list(counts.values()), dtype=torch.float32, device=logits_V.device)
            logits_V[seen_N] -= counts_N * sampling.frequency_penalty + sampling.presence_penalty
    return logits_BV


def _most_likely(logits_BV: Tensor) -> Tensor:
    """The first of the greatest. On a CPU numpy's search is twelve times as fast as torch's."""
    return torch.from_numpy(logits_BV.numpy().argmax(axis=-1)) if logits_BV.is_cpu else logits_BV.argmax(dim=-1)


def _draw(logits_BV: Tensor, samplings: Sequence[Sampling], draws: Sequence[float]) -> Tensor:
    """Inverse transform sampling: the first token at which the cumulative probability exceeds the row's draw.

    First the block of tokens in which that is, by the blocks' sums, then the token in the block: a cumulative sum in
    float64 over the whole vocabulary takes several times as long as all the rest of sampling.
    """
    temperatures_B1 = logits_BV.new_tensor([sampling.temperature for sampling in samplings])[:, None]
    probabilities_BV = torch.softmax(logits_BV / temperatures_B1, dim=-1)
    for index, sampling in enumerate(samplings):
        if sampling.top_p < 1:
            probabilities_BV[index] = _nucleus(probabilities_BV[index], sampling.top_p)
    size = logits_BV.shape[-1]
    blocks_BGW = pad(probabilities_BV, (0, -size % BLOCK_TOKENS)).view(len(samplings), -1, BLOCK_TOKENS)
    ends_BG = blocks_BGW.sum(dim=-1).double().cumsum(dim=-1)
    targets_B1 = ends_BG.new_tensor(draws)[:, None] * ends_BG[:, -1:]
    place_B1 = torch.searchsorted(ends_BG, targets_B1, right=True).clamp(max=ends_BG.shape[-1] - 1)
    begins_BG = pad(ends_BG, (1, -1))
    begin_B1, end_B1 = begins_BG.gather(1, place_B1), ends_BG.gather(1, place_B1)
    # Below 1, so that the token found has a probability: a block's sum in float32 is not quite that of its tokens.
    share_B1 = ((targets_B1 - begin_B1) / (end_B1 - begin_B1)).clamp(max=BELOW_ONE)
    within_BW = blocks_BGW.take_along_dim(place_B1[:, :, None], dim=1)[:, 0].double().cumsum(dim=-1)
    token_B1 = torch.searchsorted(within_BW, share_B1 * within_BW[:, -1:], right=True)
    return (place_B1 * BLOCK_TOKENS + token_B1)[:, 0].clamp(max=size - 1)


def _nucleus(probabilities_V: Tensor, top_p: float) -> Tensor:
    """The fewest most likely tokens, at least one, that reach `top_p` (Holtzman et al., 2019, arXiv 1904.09751)."""
    sorted_V, order_V = probabilities_V.sort(descending=True, stable=True)
    outside_V = sorted_V.cumsum(dim=-1) - sorted_V >= top_p
    outside_V[0] = False
    return probabilities_V.index_fill(0, order_V[outside_V], 0.0)
