"""Which tokens end an answer of a base: for engines, and for whatever is sampled in a training."""

from transformers import PreTrainedTokenizerFast

from workers.data.template import RenderError, find_end_of_turn, special_pattern
from workers.model.load import LoadedBase


def end_tokens(base: LoadedBase) -> frozenset[int]:
    """The tokenizer's end of text, the ends that the model's own settings name, and what training ends a turn with."""
    named = base.model.generation_config.eos_token_id if base.model.generation_config else None
    ends = [base.tokenizer.eos_token_id, _end_of_turn(base.tokenizer)]
    ends += named if isinstance(named, list) else [named]
    return frozenset(id for id in ends if id is not None)


def _end_of_turn(tokenizer: PreTrainedTokenizerFast) -> int | None:
    try:
        token = find_end_of_turn(tokenizer, special_pattern(tokenizer))
    except RenderError:
        return None  # a base without a chat template: it completes texts only
    id = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(id, int)
    return id
