"""What a model is for: the columns of its tokenised files, how engine and trainer are compared, who may call it.

`causal` is the only one so far: text in, tokens out. Others (classify, seq2seq, embed) become one entry here each, and
a value of `TaskName`, with the code that runs them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TaskName = Literal["causal"]
# Of the tokenised file (`workers.data.tokenized`), besides the tokens themselves.
Column = Literal["trained", "token_weights", "prompt_lengths", "row_labels", "row_weights", "second_tokens"]
Agreement = Literal["token_logprobs"]  # log p(token | tokens before) of a few rows, within a tolerance
Endpoint = Literal["/v1/chat/completions", "/v1/completions"]


@dataclass(frozen=True)
class Task:
    """One kind of model."""

    name: TaskName
    about: str
    columns: tuple[Column, ...]  # that a tokenised file must have
    agreement: Agreement
    endpoints: tuple[Endpoint, ...]


TASKS: Mapping[TaskName, Task] = {
    "causal": Task(
        name="causal",
        about="continues a text token by token",
        columns=("trained", "prompt_lengths"),
        agreement="token_logprobs",
        endpoints=("/v1/chat/completions", "/v1/completions"),
    )
}
