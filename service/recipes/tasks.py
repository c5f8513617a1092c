"""What a model is for: what a batch holds, how engine and trainer are compared, which endpoints may call it.

`causal` is the only one so far: text in, tokens out. Others (classify, seq2seq, embed) become one entry here each, and
a value of `TaskName`, with the code that runs them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TaskName = Literal["causal"]
Column = Literal["input_ids", "attention_mask", "labels"]
Agreement = Literal["token_logprobs"]  # log p(token | tokens before) of a few rows, within a tolerance
Endpoint = Literal["/v1/chat/completions", "/v1/completions"]


@dataclass(frozen=True)
class Task:
    """One kind of model."""

    name: TaskName
    about: str
    columns: tuple[Column, ...]  # of a training batch
    agreement: Agreement
    endpoints: tuple[Endpoint, ...]


TASKS: Mapping[TaskName, Task] = {
    "causal": Task(
        name="causal",
        about="continues a text token by token",
        columns=("input_ids", "attention_mask", "labels"),
        agreement="token_logprobs",
        endpoints=("/v1/chat/completions", "/v1/completions"),
    )
}
