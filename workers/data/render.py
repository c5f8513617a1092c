"""From a row to token ids and the flags of the trained ones; and the prompts that the engines feed, by the same code.

The mask is never found by searching. Every trained turn is rendered twice: the conversation before it with the
generation prompt (what an engine feeds), and the conversation up to it. The second must begin with the first, text and
ids; what it has more, up to and with the end-of-turn token, is what the turn trains. Loss falls on nothing else.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from service.recipes.formats.chat import ChatRow
from service.recipes.formats.completion import PromptRow
from workers.data.template import (
    Messages,
    RenderError,
    Tools,
    check_calls,
    check_complete,
    find_end_of_turn,
    refuse_special,
    refuse_special_messages,
    render_text,
    special_pattern,
    template_messages,
    template_tools,
)


@dataclass
class Rendered:
    """One sequence to train on: `ids`, and for each of them whether the loss falls on it (0 or 1)."""

    ids: list[int]
    trained: bytearray


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """What /v1/completions feeds: `tokenizer(text)`; its own set-up decides on a beginning-of-text token."""
    return _ids(tokenizer, text, add_special_tokens=True)


def encode_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> list[int]:
    """What /v1/chat/completions feeds for OpenAI's `messages` and `tools`: the base's template, answer next.

    Special tokens, a beginning-of-text token too, come from the template alone. Raises RenderError when the template
    refuses the conversation or leaves out its tool calls, or when a message holds the text of a special token.
    """
    plain, plain_tools = template_messages(messages), template_tools(tools or [])
    refuse_special_messages(special_pattern(tokenizer), plain, plain_tools)
    check_calls(tokenizer, plain, plain_tools)
    text = render_text(tokenizer, plain, plain_tools, answer_next=True)
    return _ids(tokenizer, text, add_special_tokens=False)


class Renderer:
    """Renders rows for one base, up to `context_tokens` where there is a limit."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context_tokens: int = sys.maxsize) -> None:
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._special = special_pattern(tokenizer)

    @cached_property
    def _end_of_turn(self) -> str:
        return find_end_of_turn(self._tokenizer, self._special)

    def render(self, row: ChatRow | PromptRow) -> list[Rendered]:
        """The sequences of one row: one, or several where the template shows a turn differently once others follow it.

        A chat row ends with its last trained turn: what follows cannot change the loss. Raises RenderError.
        """
        if isinstance(row, ChatRow):
            return self._chat(row)
        sequence = self._prompt(row)
        if len(sequence.ids) > self._context_tokens:
            raise self._too_long(sequence)
        return [sequence]

    def _prompt(self, row: PromptRow) -> Rendered:
        """Prompt, completion, end-of-text; loss on the last two."""
        refuse_special(self._special, row.prompt, "prompt")
        refuse_special(self._special, row.completion, "completion")
        tokenizer = self._tokenizer
        if tokenizer.eos_token is None:
            raise RenderError("completion", "the base has no end-of-text token to end a completion with")
        prompt = encode_prompt(tokenizer, row.prompt)
        if not prompt:
            raise RenderError("prompt", "is empty, and the base has no beginning-of-text token to answer to")
        both = encode_prompt(tokenizer, row.prompt + row.completion)
        ids = _joined(tokenizer, prompt, both, row.completion, tokenizer.eos_token)
        return _flagged(len(prompt), [*ids, _special_id(tokenizer, tokenizer.eos_token)])

    def _chat(self, row: ChatRow) -> list[Rendered]:
        wire = [message.model_dump(exclude_none=True) for message in row.messages[: row.trained[-1] + 1]]
        functions = [tool.function for tool in row.tools] + row.functions
        messages = template_messages(wire)
        tools = template_tools([{"function": function.model_dump()} for function in functions])
        refuse_special_messages(self._special, messages, tools)
        check_complete(self._tokenizer, messages, tools)
        encoder = _Encoder(self._tokenizer, self._special)
        sequences: list[Rendered] = []
        for index in row.trained:
            turn = self._turn(encoder, messages[: index + 1], tools)
            if len(turn.ids) > self._context_tokens:
                raise self._too_long(self._turn(encoder, messages, tools))
            _add(sequences, turn)
        return sequences

    def _turn(self, encoder: "_Encoder", messages: Messages, tools: Tools | None) -> Rendered:
        """The prompt that an engine would feed before the last message, then that message to its end-of-turn token."""
        field = f"messages[{len(messages) - 1}]"
        if len(messages) == 1:
            raise RenderError(field, "has nothing before it to answer to; add a user message, or give it weight 0")
        prompt = render_text(self._tokenizer, messages[:-1], tools, answer_next=True)
        through = render_text(self._tokenizer, messages, tools, answer_next=False)
        if not through.startswith(prompt):
            raise RenderError(field, "the base's chat template begins this answer otherwise than its generation prompt")
        answer, end_of_turn, _ = through[len(prompt) :].partition(self._end_of_turn)
        if not end_of_turn:
            raise RenderError(field, f"the base's chat template does not end this answer with {self._end_of_turn!r}")
        answer += end_of_turn
        prompt_ids, both_ids = encoder.encode(prompt), encoder.encode(prompt + answer)
        return _flagged(len(prompt_ids), _joined(self._tokenizer, prompt_ids, both_ids, answer, end_of_turn))

    def _too_long(self, sequence: Rendered) -> RenderError:
        num_tokens = len(sequence.ids)
        return RenderError("", f"is too long for the base ({num_tokens} tokens, the base takes {self._context_tokens})")


class _Encoder:
    """Encodes texts that mostly begin with the last one, without tokenising that part again.

    A tokenizer cuts text at special tokens before it does anything else, so what stands left of one never depends on
    what stands right of it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, special: re.Pattern[str]) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._text = ""
        self._ids: list[int] = []
        self._cut = (0, 0)  # character and token where the last special token stands

    def encode(self, text: str) -> list[int]:
        start, kept = self._cut if text.startswith(self._text) else (0, 0)
        ids = self._ids[:kept] + _ids(self._tokenizer, text[start:], add_special_tokens=False)
        self._text, self._ids, self._cut = text, ids, (start, kept)
        if specials := list(self._special.finditer(text, start)):
            special_id = _special_id(self._tokenizer, specials[-1][0])
            self._cut = specials[-1].start(), len(ids) - 1 - ids[::-1].index(special_id)
        return ids


def _joined(
    tokenizer: PreTrainedTokenizerBase, prompt: list[int], both: list[int], answer: str, special: str
) -> list[int]:
    """Ids that begin with exactly `prompt` and go on with `answer`.

    `both` (prompt and answer tokenised as one text) where no token crosses the boundary; else the answer is tokenised
    by itself, behind `special`, so that no tokenizer takes it for the beginning of a text.
    """
    if both[: len(prompt)] == prompt:
        return both
    ids = prompt + _ids(tokenizer, special + answer, add_special_tokens=False)[1:]
    if tokenizer.decode(ids) != tokenizer.decode(both):
        raise RenderError("", "the base's tokenizer cannot keep prompt and answer apart in this example")
    return ids


def _flagged(num_prompt_tokens: int, ids: list[int]) -> Rendered:
    return Rendered(ids, bytearray(num_prompt_tokens) + b"\x01" * (len(ids) - num_prompt_tokens))


def _add(sequences: list[Rendered], turn: Rendered) -> None:
    """A turn that goes on exactly where a sequence ends takes it over; else it is a sequence of its own."""
    for known in sorted(sequences, key=lambda sequence: -len(sequence.ids)):
        if turn.ids[: len(known.ids)] == known.ids:
            known.trained += turn.trained[len(known.ids) :]
            known.ids = turn.ids
            return
    sequences.append(turn)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, add_special_tokens: bool) -> list[int]:
    return list(tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])


def _special_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    (special_id,) = _ids(tokenizer, token, add_special_tokens=False)
    return special_id
