"""Supervised fine-tuning, without tensors. Those are in `workers.objectives.supervised`."""

from collections.abc import Mapping
from typing import ClassVar

from service.recipes.format import Format
from service.recipes.formats.chat import Chat
from service.recipes.formats.completion import Completion
from service.recipes.objective import OBJECTIVES, ObjectiveSettings
from service.recipes.tasks import BaseKind


@OBJECTIVES.register_default
class SupervisedSettings(ObjectiveSettings):
    """Cross entropy of the trained tokens, each given all tokens before it: the sum over a step's trained tokens,
    divided by their number. For examples of what the model shall say. With weights (`weight` of a row or a message)
    each token's cross entropy is multiplied by its weight; the divisor stays the number of tokens of any weight but 0.

    On an encoder-decoder, such as T5, the decoder's tokens are trained: the answer and the end-of-text token. The
    encoder reads the conversation as the base's chat template shows it; without a template it reads the user's message,
    with the text of system messages and a blank line before it, so that a conversation is one question and its answer.
    A row with several trained answers is a pair of texts for each; one with `prompt` and `completion` needs no
    template. The base's context is for both texts together.
    """

    name: ClassVar[str] = "supervised"
    formats: ClassVar[tuple[type[Format], ...]] = (Completion, Chat)
    columns: ClassVar[Mapping[str, str]] = {
        "step": "step",
        "train_loss": "train_loss",
        "train_accuracy": "train_mean_token_accuracy",
        "valid_loss": "valid_loss",
        "valid_mean_token_accuracy": "valid_mean_token_accuracy",
    }
    metrics: ClassVar[tuple[str, ...]] = ("mean_token_accuracy",)
    kinds: ClassVar[frozenset[BaseKind]] = frozenset({"causal", "encoder-decoder"})
