"""Continued pre-training on plain text, without tensors. Those are in `workers.objectives.text`."""

from collections.abc import Mapping
from typing import ClassVar

from service.recipes.format import Format
from service.recipes.formats.text import Text
from service.recipes.objective import OBJECTIVES, ObjectiveSettings


@OBJECTIVES.register
class TextSettings(ObjectiveSettings):
    """Cross entropy of every token of plain text: the sum over a step's tokens, divided by their number. For a base
    that shall know a field's language before, or instead of, being taught to respond (domain-adaptive pre-training;
    Gururangan et al., 2020, [arXiv 2004.10964](https://arxiv.org/abs/2004.10964)). A document that is longer than the
    base's context is cut into pieces, each of which begins with the last token of the one before, so that every token
    but the first is trained once. Pieces are packed in the order of the file: an example is as many as fit into the
    context together, so that examples, which `batch_size` counts, have about as many tokens each. Within an example
    each piece is a row of its own for the base: no document sees another, and positions begin again at 0.
    """

    name: ClassVar[str] = "text"
    formats: ClassVar[tuple[type[Format], ...]] = (Text,)
    columns: ClassVar[Mapping[str, str]] = {
        "step": "step",
        "train_loss": "train_loss",
        "train_accuracy": "train_mean_token_accuracy",
        "valid_loss": "valid_loss",
        "valid_mean_token_accuracy": "valid_mean_token_accuracy",
    }
    metrics: ClassVar[tuple[str, ...]] = ("mean_token_accuracy",)
    packed: ClassVar[bool] = True
    has_prompts: ClassVar[bool] = False
