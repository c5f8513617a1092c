"""What is replaced in vLLM 0.32, which would compute something wrong there, or end for everybody.

On processors without a GPU, which rows of a batch get which adapter. In a batch that mixes the base with adapters, rows
of the base have the index -1; the PyTorch kernels take that as "the last slot" and add whatever adapter is there (wrong
text, which the prefix cache keeps). vLLM's pull requests 48421 and 49656 fix it in 0.33. Here the input of such rows is
zero, so that nothing is added to them.

There, too: where a request asks for its prompt's log-probabilities, the output layer gets a row for every token of the
prompt, but one slot for every request: the kernels raise, and the whole server ends. What they would add is zero,
because `workers.engines.vllm.fit` refuses adapters that change the output layer. So they are left out there.

Everywhere, that a prompt's tokens are all known to the base's weights. vLLM accepts an id that either the weights or
the tokenizer know, for models whose images stand for such ids. A text base whose tokenizer has more tokens than its
embedding has rows would compute on a row that there is not: with anything, or with an index error that ends the engine.
The embedded engine and training refuse them, too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

AFFECTED = "0.32."
KERNELS = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")

Kernel = Callable[..., None]
Validate = Callable[..., None]


def rows_need_fix(vllm_version: str, on_cpu: bool) -> bool:
    """Whether this vLLM computes wrong results for the rows of a batch."""
    return on_cpu and vllm_version.startswith(AFFECTED)


def fix_rows() -> None:
    """Replaces vLLM's kernels by the masked ones. Raises AttributeError where it has no such kernels."""
    import vllm.lora.ops.torch_ops.lora_ops as kernels  # noqa: PLC0415  only where the version is known to have it
    import vllm.lora.punica_wrapper.punica_cpu as callers  # noqa: PLC0415

    for name in KERNELS:
        fixed = masked(getattr(kernels, name))
        setattr(kernels, name, fixed)  # the prefill's kernels call these by their module
        setattr(callers, name, fixed)
    callers.PunicaWrapperCPU.add_lora_logits = add_nothing


def add_nothing(*_: Any, **__: Any) -> None:
    """Adapters that do not change the output layer add nothing to the logits."""


def masked(kernel: Kernel) -> Kernel:
    """B rows, I inputs: the kernel with zeros for the rows whose slot is -1."""

    def run(inputs_BI: torch.Tensor, weights: torch.Tensor, outputs: torch.Tensor, slots_B: torch.Tensor, *more: Any,
            **named: Any) -> None:  # fmt: skip
        kernel(inputs_BI.masked_fill(slots_B.unsqueeze(1) < 0, 0), weights, outputs, slots_B, *more, **named)

    return run


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
