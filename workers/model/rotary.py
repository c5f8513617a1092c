"""Rotary positions whose frequencies depend on how long a row is, fixed for a base once, when it is loaded.

With LongRoPE (Ding et al., 2024, arXiv 2402.13753; Phi-3, Phi-4-mini) and dynamic NTK scaling, transformers chooses the
frequencies at each pass, by the longest row in it: a row's logits then depend on the rows beside it, and keys that are
cached already have other frequencies than those that follow. Here they are those of a row as long as the base's
`context_tokens`, for every row. vLLM chooses LongRoPE's in the same way, by its longest row.
"""

import copy

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

LONGROPE, DYNAMIC = "longrope", "dynamic"
FIXED = "default"  # transformers' name of a kind whose frequencies it never computes again
SWITCHED = ("factor", "mscale")  # of LongRoPE: each exists for short rows and for long ones


def fix_frequencies(model: PreTrainedModel, context_tokens: int) -> None:
    """Makes rows independent of each other's lengths; rows may have `context_tokens` tokens. May be called once."""
    for module in model.modules():
        kinds = vars(module).get("rope_type")
        if isinstance(kinds, str):
            if _fix(module, kinds, context_tokens, None):
                vars(module)["rope_type"] = FIXED
        elif isinstance(kinds, dict):  # of each type of layers
            for layer_type, kind in kinds.items():
                if _fix(module, kind, context_tokens, layer_type):
                    kinds[layer_type] = FIXED


def _fix(module: nn.Module, kind: str, context_tokens: int, layer_type: str | None) -> bool:
    """Whether the frequencies of this kind depended on lengths; they no longer do."""
    config = vars(module).get("config")
    if (kind != LONGROPE and DYNAMIC not in kind) or not isinstance(config, PreTrainedConfig):
        return False
    own = copy.deepcopy(config)  # the model's own is saved with a merged model, as it is
    if kind == LONGROPE:
        _choose(own.rope_parameters if layer_type is None else own.rope_parameters[layer_type], context_tokens)
        vars(module)["config"] = own  # of which some families read in each pass
    elif context_tokens <= config.max_position_embeddings:
        return True  # those that it has are of rows without scaling
    frequencies = vars(module)["_buffers"]["inv_freq" if layer_type is None else f"{layer_type}_inv_freq"]
    assert isinstance(frequencies, Tensor)
    chosen, _ = ROPE_INIT_FUNCTIONS[kind](own, frequencies.device, seq_len=context_tokens, layer_type=layer_type)
    frequencies.copy_(chosen)
    return True


def _choose(parameters: dict[str, object], context_tokens: int) -> None:
    """Makes LongRoPE's settings for short rows and for long ones equal."""
    switch = parameters["original_max_position_embeddings"]
    assert isinstance(switch, int | float)
    side = "long" if context_tokens > switch else "short"
    for name in SWITCHED:
        if (chosen := parameters.get(f"{side}_{name}")) is not None:
            parameters[f"short_{name}"] = parameters[f"long_{name}"] = chosen
