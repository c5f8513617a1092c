"""What a model is for, and what kind of base it stands on.

A base has a kind, which its own config says (`workers.model.kind`) and the catalogue repeats; an objective makes models
for one task. From the task follow the columns of the tokenised files, how engine and trainer are compared, and which
routes may call the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from service.domain.errors import InvalidRequest
from service.domain.model import TaskName

BaseKind = Literal["causal", "encoder", "encoder-decoder"]
# Of the tokenised file (`workers.data.tokenized`), besides the tokens themselves.
Column = Literal[
    "trained", "token_weights", "prompt_lengths", "row_labels", "row_label_sets", "row_weights", "second_tokens"
]
# `token_logprobs`: log p(token | tokens before) of a few rows; `head_values`: what the head returns for a few rows.
Agreement = Literal["token_logprobs", "head_values"]
Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/classifications", "/v1/embeddings"]

KINDS: Mapping[BaseKind, str] = {
    "causal": "a causal language model, which reads a text from left to right and continues it",
    "encoder": "an encoder, which reads a text as a whole and writes none",
    "encoder-decoder": "an encoder-decoder, which reads one text as a whole and writes another",
}
KIND_COLUMNS: Mapping[BaseKind, tuple[Column, ...]] = {"encoder-decoder": ("second_tokens",)}  # besides the task's


@dataclass(frozen=True)
class Task:
    """One kind of model."""

    name: TaskName
    about: str
    columns: tuple[Column, ...]  # that a tokenised file must have
    agreement: Agreement
    endpoints: tuple[Endpoint, ...]

    @property
    def has_head(self) -> bool:
        """Whether its models compute something else than the base's tokens, as their `head.json` says."""
        return self.agreement == "head_values"


TASKS: Mapping[TaskName, Task] = {
    "generate": Task(
        name="generate",
        about="writes text token by token",
        columns=("trained", "prompt_lengths"),
        agreement="token_logprobs",
        endpoints=("/v1/chat/completions", "/v1/completions"),
    ),
    "classify": Task(
        name="classify",
        about="reads a text and returns a number for each of its labels, or one score",
        columns=("prompt_lengths",),
        agreement="head_values",
        endpoints=("/v1/classifications",),
    ),
    "embed": Task(
        name="embed",
        about="reads a text and returns a vector of length 1 for it",
        columns=("prompt_lengths",),
        agreement="head_values",
        endpoints=("/v1/embeddings",),
    ),
}


def wrong_endpoint(model: str, task: Task) -> InvalidRequest:
    """The error for a model of that task that was called at another task's route."""
    return InvalidRequest(
        f"The model '{model}' {task.about}: call it at {' or '.join(task.endpoints)}.",
        param="model",
        code="model_not_supported",
    )


def encoder_alone(base: str) -> InvalidRequest:
    """The error for an encoder that was called by itself at another route than that of its vectors."""
    return InvalidRequest(
        f"'{base}' is {KINDS['encoder']}, and has no labels of its own: train a model on it, with a method such as "
        f"'classification', and call that; vectors of texts it returns at {' or '.join(TASKS['embed'].endpoints)}.",
        param="model",
        code="model_not_supported",
    )
