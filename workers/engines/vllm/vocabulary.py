"""A check that vLLM 0.32 leaves out: that a prompt's tokens are all known to the base's weights.

vLLM accepts an id that either the weights or the tokenizer know, for models whose images stand for such ids. A text
base whose tokenizer has more tokens than its embedding has rows would compute on a row that there is not: with
anything, or with an index error that ends the engine for everybody. The embedded engine and training refuse them, too.
"""

from collections.abc import Callable, Sequence
from typing import Any

Validate = Callable[..., None]


def refuse_unknown_tokens() -> None:
    """Replaces vLLM's check of a prompt's tokens. Raises AttributeError where it has no such check."""
    from vllm.exceptions import VLLMValidationError  # noqa: PLC0415  only in vLLM's environment
    from vllm.renderers.base import BaseRenderer  # noqa: PLC0415

    BaseRenderer.validate_token_ids = known_only(BaseRenderer.validate_token_ids, VLLMValidationError)


def known_only(validate: Validate, error: type[Exception]) -> Validate:
    """vLLM's check, then ours; `error` becomes a 400."""

    def run(renderer: Any, token_ids: Sequence[int], **named: Any) -> None:
        validate(renderer, token_ids, **named)
        known = renderer.model_config.get_vocab_size()
        highest = max(token_ids, default=0)
        if highest >= known:
            raise error(
                f"The prompt contains token {highest} of the base's tokenizer, but the base's weights have embeddings "
                f"only for tokens below {known}. Please remove the text that it stands for."
            )

    return run
