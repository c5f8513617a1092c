"""From a row to token ids and the flags of the trained ones; and the prompts that the engines feed, by the same code.

The mask is never found by searching. Prompt and answer of every trained turn come from `workers.data.turn` as text, the
prompt exactly as an engine feeds it; here they become tokens, so that those of the prompt are the engine's, too. Loss
falls on the answer and on the token that ends it, and on nothing else.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from service.recipes.formats.chat import ChatRow
from service.recipes.formats.completion import PromptRow
from workers.data.base_text import BaseText, UnknownToken
from workers.data.complete import check_complete, check_words
from workers.data.joining import Encoder, joined
from workers.data.messages import Messages, RenderError, Tools, template_messages, template_tools
from workers.data.template import ChatTemplate, refuse_special, refuse_special_messages, strings
from workers.data.turn import trained_turn


@dataclass
class Rendered:
    """One sequence to train on: `ids`, and for each of them whether the loss falls on it (0 or 1)."""

    ids: list[int]
    trained: bytearray


def encode_prompt(text: BaseText, prompt: str) -> list[int]:
    """What /v1/completions feeds: `tokenizer(prompt)`; its own set-up decides on a beginning-of-text token.

    Raises RenderError for a token that the weights do not know.
    """
    try:
        return text.ids(prompt, add_special_tokens=True)
    except UnknownToken as unknown:
        raise RenderError("prompt", str(unknown)) from unknown


def encode_chat(
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> list[int]:
    """What /v1/chat/completions feeds for OpenAI's `messages` and `tools`: the base's template, answer next.

    Special tokens, a beginning-of-text token too, come from the template alone. Raises RenderError for what a training
    file may not hold either: a conversation that the template refuses or does not show whole, the text of a special
    token, a token that the weights do not know.
    """
    plain, plain_tools = template_messages(messages), template_tools(tools or [])
    refuse_special_messages(template.text.special, plain, plain_tools)
    check_complete(template, plain, plain_tools, answer_next=True)
    text = template.render(plain, plain_tools, answer_next=True)
    check_words(template, plain, plain_tools, text)
    try:
        return template.text.ids(text, add_special_tokens=False)
    except UnknownToken as unknown:
        raise _beyond(unknown, plain, plain_tools) from unknown


class Renderer:
    """Renders rows for one base, up to `context_tokens` where there is a limit.

    `day` is the date that the template is given as today's; None gives it the real one.
    """

    def __init__(self, text: BaseText, context_tokens: int = sys.maxsize, day: date | None = None) -> None:
        self._text = text
        self._context_tokens = context_tokens
        self._template = ChatTemplate(text, day)

    def render(self, row: ChatRow | PromptRow) -> list[Rendered]:
        """The sequences of one row: one, or several where the template shows a turn differently once others follow it.

        A chat row ends with its last trained turn: what follows cannot change the loss. Raises RenderError.
        """
        if isinstance(row, ChatRow):
            return self._chat(row)
        try:
            sequence = self._prompt(row)
        except UnknownToken as unknown:
            field = "prompt" if unknown.token in row.prompt else "completion"
            raise RenderError(field, str(unknown)) from unknown
        if len(sequence.ids) > self._context_tokens:
            raise self._too_long(sequence)
        return [sequence]

    def _prompt(self, row: PromptRow) -> Rendered:
        """Prompt, completion, end-of-text; loss on the last two."""
        text = self._text
        refuse_special(text.special, row.prompt, "prompt")
        refuse_special(text.special, row.completion, "completion")
        end_of_text = text.tokenizer.eos_token
        if not isinstance(end_of_text, str):
            raise RenderError("completion", "the base has no end-of-text token to end a completion with")
        prompt = text.ids(row.prompt, add_special_tokens=True)
        if not prompt:
            raise RenderError("prompt", "is empty, and the base has no beginning-of-text token to answer to")
        both = text.ids(row.prompt + row.completion, add_special_tokens=True)
        ids = joined(text, prompt, both, row.completion, end_of_text)
        return _flagged(len(prompt), [*ids, text.special_id(end_of_text)])

    def _chat(self, row: ChatRow) -> list[Rendered]:
        wire = [message.model_dump(exclude_none=True) for message in row.messages[: row.trained[-1] + 1]]
        functions = [tool.function for tool in row.tools] + row.functions
        messages = template_messages(wire)
        tools = template_tools([{"function": function.model_dump()} for function in functions])
        refuse_special_messages(self._text.special, messages, tools)
        check_complete(self._template, messages, tools, answer_next=False)
        encoder = Encoder(self._text)
        sequences: list[Rendered] = []
        try:
            for index in row.trained:
                prompt, turn = self._turn(encoder, messages[: index + 1], tools)
                if len(turn.ids) > self._context_tokens:
                    raise self._too_long(self._turn(encoder, messages, tools)[1])
                _add(sequences, turn)
        except UnknownToken as unknown:
            raise _beyond(unknown, messages, tools) from unknown
        check_words(self._template, messages[:-1], tools, prompt)
        return sequences

    def _turn(self, encoder: Encoder, messages: Messages, tools: Tools | None) -> tuple[str, Rendered]:
        """The prompt that an engine would feed before the last message, as text; and with that message, as tokens."""
        prompt, answer = trained_turn(self._template, messages, tools)
        prompt_ids, both_ids = encoder.encode(prompt), encoder.encode(prompt + answer)
        end = [match[0] for match in self._text.special.finditer(answer)][-1]
        return prompt, _flagged(len(prompt_ids), joined(self._text, prompt_ids, both_ids, answer, end))

    def _too_long(self, sequence: Rendered) -> RenderError:
        num_tokens = len(sequence.ids)
        return RenderError("", f"is too long for the base ({num_tokens} tokens, the base takes {self._context_tokens})")


def _beyond(unknown: UnknownToken, messages: Messages, tools: Tools | None) -> RenderError:
    """Says where the user wrote the token; it may be the template's own."""
    for index, message in enumerate(messages):
        for key, value in message.items():
            if any(unknown.token in text for text in strings(value)):
                return RenderError(f"messages[{index}].{key}", str(unknown))
    written = any(unknown.token in text for text in strings(tools))
    return RenderError("tools" if written else "messages", str(unknown))


def _flagged(num_prompt_tokens: int, ids: list[int]) -> Rendered:
    return Rendered(ids, bytearray(num_prompt_tokens) + b"\x01" * (len(ids) - num_prompt_tokens))


def _add(sequences: list[Rendered], turn: Rendered) -> None:
    """A turn that continues exactly where a sequence ends takes it over; else it is a sequence of its own."""
    for known in sorted(sequences, key=lambda sequence: -len(sequence.ids)):
        if turn.ids[: len(known.ids)] == known.ids:
            known.trained += turn.trained[len(known.ids) :]
            known.ids = turn.ids
            return
    sequences.append(turn)
