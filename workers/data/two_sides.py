"""The two sides of an encoder-decoder's row: what its encoder reads, and what its decoder writes.

With a chat template the encoder reads the conversation as the template shows it, as any other base does. Without one it
reads one message: the text of the only user message, with those of system messages in front. The decoder begins with
the base's start token and writes the answer and the end-of-text token; only these are trained. Training rows and the
prompts of engines come from here alike; `workers.data.render` calls it.
"""

from service.domain.json import JsonObject
from workers.data.base_text import BaseText, UnknownToken
from workers.data.encodings import Encodings
from workers.data.messages import REASONING, Messages, RenderError, Tools
from workers.data.template import refuse_special

_SYSTEM = ("system", "developer")


def has_two_sides(text: BaseText) -> bool:
    """Whether the base is an encoder-decoder."""
    return text.decoder_start_id is not None


def question(messages: Messages, tools: Tools | None) -> str:
    """What the encoder reads of a conversation without a chat template. Raises RenderError.

    What it could not show is refused rather than left out: tools, and messages of an earlier turn.
    """
    if tools:
        raise RenderError("tools", "cannot be shown: the base has no chat template; remove them, or use another base")
    for index, message in enumerate(messages[:-1]):
        if message["role"] not in _SYSTEM:
            raise RenderError(
                f"messages[{index}]",
                "would not be read: the base has no chat template, so it reads one user message, and system messages "
                "before it; remove the earlier messages, or give the base a chat template",
            )
    if not messages or messages[-1]["role"] != "user":
        raise RenderError(
            f"messages[{max(0, len(messages) - 1)}]",
            "must be a user message: the base has no chat template, so it reads one user message and responds to it",
        )
    return "\n\n".join(message["content"] for message in messages if message["content"])


def written(message: JsonObject, field: str) -> str:
    """The text of an assistant's message. Raises RenderError for what a decoder's text has no form for."""
    if message.get("tool_calls"):
        raise RenderError(f"{field}.tool_calls", "cannot be learned by an encoder-decoder, which writes plain text")
    if message.get(REASONING):
        reason = "cannot be learned by an encoder-decoder, which writes plain text; remove it"
        raise RenderError(f"{field}.{REASONING}", reason)
    return str(message["content"])


def answer_ids(text: BaseText, encodings: Encodings, answer: str, field: str) -> list[int]:
    """The decoder's tokens: the start token, the answer as the tokenizer writes a text, the end-of-text token.

    `encodings` are the base's. Raises RenderError, which blames `field`.
    """
    assert text.decoder_start_id is not None, "an encoder-decoder"
    refuse_special(text.special, answer, field)
    end_of_text = text.tokenizer.eos_token
    if not isinstance(end_of_text, str):
        raise RenderError(field, "the base has no end-of-text token to end an answer with; use another base")
    try:
        ids = encodings.ids(answer, add_special_tokens=True)
    except UnknownToken as unknown:
        raise RenderError(field, str(unknown)) from unknown
    end = text.special_id(end_of_text)
    return [text.decoder_start_id, *ids, *([] if ids[-1:] == [end] else [end])]
