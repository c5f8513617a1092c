"""Recognises rows that other tools and providers train on, by their whole shape, and says how to write them here.

Asked only about rows that fit no registered format: a format of an extension is never taken for another's. Nothing is
converted: what a row is meant to train is the user's to say.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from service.domain.json import JsonObject

# How the keys of a row fit the format of ours that is nearest: all and more, some, or none of those that it needs.
Fit = Literal["more", "some", "none"]

_PREFERENCE = (
    '{"input": {"messages": [{"role": "user", "content": PROMPT}]}, '
    '"preferred_output": [{"role": "assistant", "content": CHOSEN}], '
    '"non_preferred_output": [{"role": "assistant", "content": REJECTED}]}'
)
_TURNS = '{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}'


def _chat(question: str, answer: str) -> str:
    return f'{{"messages": [{{"role": "user", "content": {question}}}, {{"role": "assistant", "content": {answer}}}]}}'


def _pair(prompt: str, chosen: str, rejected: str) -> str:
    return _PREFERENCE.replace("PROMPT", prompt).replace("CHOSEN", chosen).replace("REJECTED", rejected)


@dataclass(frozen=True)
class ForeignShape:
    """Rows of another tool: whose they are, the format of ours that they become, and the sentence that says how.

    `keys` must all be in the row, and `fits` must be true of it.
    """

    name: str
    keys: frozenset[str]
    format: str
    rewriting: str
    fits: Callable[[JsonObject], bool] = lambda row: True


def _shape(
    name: str, keys: str, format: str, rewriting: str, fits: Callable[[JsonObject], bool] = lambda row: True
) -> ForeignShape:
    return ForeignShape(name, frozenset(keys.split()), format, rewriting, fits)


def _has_list(key: str, *parts: str) -> Callable[[JsonObject], bool]:
    """Whether the value of `key` is a list whose first element is an object with all these keys."""

    def fits(row: JsonObject) -> bool:
        value = row.get(key)
        first = value[0] if isinstance(value, list) and value else None
        return isinstance(first, dict) and all(part in first for part in parts)

    return fits


_SHAREGPT = f'write it as {_TURNS}: "from" becomes "role" ("human" is "user", "gpt" is "assistant"), "value" "content"'
_SYSTEM_FIRST = 'move "system" into a first message {"role": "system", "content": ...}, and keep only "messages"'

# The first that fits; those with more keys first.
SHAPES = (
    _shape("a request of OpenAI's Batch API", "custom_id body", "chat",
           'write {"messages": [...]} with the messages of its "body" and the answer as the last one'),
    _shape("a response of the chat API", "choices", "chat",
           'write {"messages": [...]} with the messages that were asked and "choices"[0]."message" as the last one'),
    _shape("a stepwise row of TRL", "prompt completions labels", "completion",
           'write {"prompt": ..., "completion": ...} with the steps that are right joined to one text'),
    _shape("a preference of LLaMA-Factory", "conversations chosen rejected", "preference",
           f'write it as {_pair("...", "...", "...")}, with the messages of "conversations" as "messages"'),
    _shape("a preference of ms-swift", "messages rejected_response", "preference",
           f'write it as {_pair("...", "...", "<rejected_response>")}, with the last message as "preferred_output"'),
    _shape("a preference of TRL", "prompt chosen rejected", "preference",
           f'write it as {_pair("<prompt>", "<chosen>", "<rejected>")}; where they are lists of messages, "messages" '
           "takes the prompt's, and each answer its last message"),
    _shape("a preference of TRL", "chosen rejected", "preference",
           f'write it as {_pair("...", "...", "...")}: "messages" takes what both begin with, and each answer the last '
           "message"),
    _shape("a conversation of Amazon Bedrock", "schemaVersion messages", "chat",
           f'{_SYSTEM_FIRST}; write each "content" as a string'),
    _shape("a conversation of Anthropic's", "system messages", "chat", _SYSTEM_FIRST),
    _shape("a conversation of Gemini's", "contents", "chat",
           f'write it as {_TURNS}: "contents" becomes "messages", the role "model" "assistant", the text of "parts" '
           '"content", and "systemInstruction" a first message with the role "system"'),
    _shape("a pair of Vertex AI", "input_text output_text", "chat",
           f'write it as {_chat("<input_text>", "<output_text>")}'),
    _shape("a ShareGPT conversation", "conversations", "chat", _SHAREGPT),
    _shape("a ShareGPT conversation", "conversation", "chat", _SHAREGPT),
    _shape("a row of FlagEmbedding", "query pos", "contrastive_pair",
           'write {"anchor": <query>, "positive": ...} for each text of "pos", and "negative" with one of "neg" on '
           "every row or on none"),
    *(
        _shape("a pair of texts under other names", f"{name} positive", "contrastive_pair",
               f'rename "{name}" to "anchor"; fields are "anchor", "positive" and "negative"')
        for name in ("query", "question", "sentence", "text")
    ),
    _shape("an Alpaca row", "instruction output", "chat",
           f'write it as {_chat("<instruction and input>", "<output>")}, with "system" as a message before them'),
    _shape("a Dolly row", "instruction response", "chat",
           f'write it as {_chat("<instruction and context>", "<response>")}'),
    _shape("a row of the Responses API", "input output", "chat",
           'write {"messages": [...]} with "input", and the text of "output" as the last message',
           lambda row: isinstance(row["output"], list)),
)  # fmt: skip

# Asked only where no format's keys are all there: beside those, the same keys are notes.
LOOSE = (
    _shape("tokens, not text", "input_ids", "chat", f"write its text as {_TURNS}; the base's own tokenizer reads it"),
    *(
        _shape("a question with its answer", f"{question} {answer}", "chat",
               f'write it as {_chat(f"<{question}>", f"<{answer}>")}')
        for question, answer in (
            ("question", "answer"), ("question", "response"), ("query", "response"), ("query", "answer"),
            ("prompt", "response"), ("prompt", "answer"), ("prompt", "output"), ("instruction", "completion"),
            ("instruction", "answer"), ("input", "output"), ("input", "response"), ("input", "target"),
            ("source", "target"), ("user", "assistant"), ("human", "assistant"), ("inputs", "targets"),
            ("input", "completion"),
        )
    ),
)  # fmt: skip

# Rows that have the keys of one of our formats, with values of another tool's.
VALUES = (
    _shape("a ShareGPT conversation", "messages", "chat", _SHAREGPT, _has_list("messages", "from", "value")),
    _shape("a ShareGPT conversation", "input", "preference", _SHAREGPT,
           lambda row: isinstance(row["input"], dict) and _has_list("messages", "from", "value")(row["input"])),
    _shape("a conversation of Gemini's", "messages", "chat",
           f'write it as {_TURNS}: the role "model" becomes "assistant", the text of "parts" "content"',
           _has_list("messages", "parts")),
    _shape("a conversational prompt/completion row of TRL", "prompt completion", "chat",
           'write {"messages": [...]} with the messages of "prompt" and "completion"; "weight": 0 keeps an assistant '
           "message of the prompt from being learned",
           lambda row: isinstance(row["prompt"], list) and isinstance(row["completion"], list)),
    _shape("a conversational prompt with one completion", "prompt completion", "chat",
           'write {"messages": [...]} with the messages of "prompt" and {"role": "assistant", "content": <completion>}',
           lambda row: isinstance(row["prompt"], list)),
)  # fmt: skip


def foreign_shape(row: JsonObject, fit: Fit) -> ForeignShape | None:
    """Whose row this is, whose keys fit a format of ours no better than `fit`."""
    if fit == "more":
        return _first(SHAPES, row)
    found = _first(SHAPES, row) or _first(LOOSE, row)
    return _renamed(row) if found is None and fit == "none" else found


def foreign_values(row: JsonObject) -> ForeignShape | None:
    """Whose row this is, though it has the keys of a format of ours."""
    return _first(VALUES, row)


def _first(shapes: tuple[ForeignShape, ...], row: JsonObject) -> ForeignShape | None:
    return next((shape for shape in shapes if shape.keys <= row.keys() and shape.fits(row)), None)


def _renamed(row: JsonObject) -> ForeignShape | None:
    """A conversation, or rows, under another key."""
    for key in row:
        if _has_list(key, "role", "content")(row):
            return _shape("a conversation under another key", "", "chat", f'rename "{key[:64]}" to "messages"')
        if any(_has_list(key, *names)(row) for names in (("messages",), ("prompt", "completion"), ("input",))):
            return _shape("a list of rows", "", "chat", f'write each object of "{key[:64]}" on a line of its own')
    return None
