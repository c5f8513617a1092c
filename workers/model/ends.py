"""Which tokens end an answer of a base: engines and whatever is sampled in a training stop at them.

Knows a loaded base; does not depend on requests.
"""

from workers.data.template import ChatTemplate
from workers.model.load import LoadedBase


def end_tokens(base: LoadedBase) -> frozenset[int]:
    """The ends that the model's own settings name, the tokenizer's end of text, and what training ends turns with."""
    return base.text.end_ids | set(map(base.text.special_id, ChatTemplate(base.text).ends))
