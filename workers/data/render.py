"""Renders a row to token ids with a flag for each trained one, and the prompts of engines by the same code.

The mask is never found by searching. `workers.data.turn` returns prompt and answer of every trained turn as text, the
prompt exactly as an engine gets it; here they become tokens such that the prompt's are exactly the engine's. The answer
and the token that ends it are trained, and nothing else. The sequences of a preference pair begin with the same prompt.
Of an encoder-decoder both are sequences of their own, which `workers.data.two_sides` writes.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from pydantic import ValidationError

from service.domain.json import JsonObject
from service.recipes.dataset import explained
from service.recipes.formats.chat import Answer, AssistantMessage, ChatRow, Message, SystemMessage, UserMessage
from service.recipes.formats.completion import PromptRow
from service.recipes.formats.contrastive import ContrastiveRow
from service.recipes.formats.labelled import LabelledRow
from service.recipes.formats.preference import PreferenceInput, PreferenceRow
from service.recipes.formats.text import TextRow
from workers.data.base_text import BaseText, UnknownToken
from workers.data.complete import check_complete, check_words
from workers.data.encodings import Asked, Encoder, Encodings, encoded_for
from workers.data.examples import pieces
from workers.data.messages import Messages, RenderError, Tools, template_messages, template_tools
from workers.data.template import ChatTemplate, refuse_special, refuse_special_messages, strings
from workers.data.turn import trained_turn
from workers.data.two_sides import answer_ids, has_two_sides, question, written
from workers.data.units import Units

AnyRow = ChatRow | PromptRow | PreferenceRow | TextRow | LabelledRow | ContrastiveRow
_MESSAGE = re.compile(r"messages\[(\d+)\]")
# An answer is tokenised after one of these, so that a tokenizer which adds a space before its input adds it before
# these instead.
_ANCHORS = ("\n", "a", "0", ".", ")", "\u00e9")


@dataclass
class Rendered:
    """One training sequence: `ids`, and for each of them whether it is trained (1) or not (0)."""

    ids: list[int]  # of an encoder-decoder its decoder's
    trained: bytearray
    weights: list[float] | None = None  # of each token, where a trained one has another weight than 1
    second: list[int] | None = None  # what the encoder of an encoder-decoder reads

    @property
    def num_tokens(self) -> int:
        """Of both sides."""
        return len(self.ids) + len(self.second or ())


def encode_prompt(text: BaseText | Encodings, prompt: str) -> list[int]:
    """The tokens of a prompt of /v1/completions; the tokenizer's settings decide on a beginning-of-text token.

    Raises RenderError for a token without an embedding.
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
    """The tokens of a prompt of /v1/chat/completions, from OpenAI's `messages` and `tools`, up to the answer.

    Special tokens, including a beginning-of-text token, come from the template alone. Raises RenderError for what is
    invalid in a training file too: a conversation that the template rejects or does not show completely, the text of a
    special token, a token without an embedding.
    """
    plain, plain_tools = template_messages(messages), template_tools(tools or [])
    refuse_special_messages(template.text.special, plain, plain_tools)
    if has_two_sides(template.text) and not template.text.tokenizer.chat_template:
        return _encode_question(template.text, plain, plain_tools)
    check_complete(template, plain, plain_tools, answer_next=True)
    text = template.render(plain, plain_tools, answer_next=True)
    check_words(template, plain, plain_tools, text)
    try:
        return template.text.ids(text, add_special_tokens=False)
    except UnknownToken as unknown:
        raise _beyond(unknown, plain, plain_tools) from unknown


def _encode_question(text: BaseText, messages: Messages, tools: Tools | None) -> list[int]:
    try:
        return text.ids(question(messages, tools), add_special_tokens=True)
    except UnknownToken as unknown:
        raise _beyond(unknown, messages, tools) from unknown


@dataclass(frozen=True)
class _Conversation:
    """A chat row as text: prompt and answer of its trained turns, up to an error."""

    row: ChatRow
    messages: Messages = field(default_factory=list)
    tools: Tools | None = None
    turns: Sequence[tuple[str, str]] = ()
    error: RenderError | None = None  # in what comes after these turns

    def texts(self) -> Iterator[str]:
        for prompt, answer in self.turns:
            yield prompt
            yield prompt + answer


@dataclass(frozen=True)
class Prepared:
    """A row of which everything is done that needs no tokens."""

    row: AnyRow
    conversations: Sequence[_Conversation] = ()


class Renderer:
    """Renders rows for one base, of at most `context_tokens` each with the `prefix_tokens` that a tuning puts before
    them.

    `day` is the current date that the template gets; None is the real one. With `turns_apart` each trained turn of a
    conversation is a sequence of its own (`TuningSettings.edits_prompts`).
    """

    def __init__(
        self,
        text: BaseText,
        context_tokens: int = sys.maxsize,
        day: date | None = None,
        prefix_tokens: int = 0,
        turns_apart: bool = False,
    ) -> None:
        self._turns_apart = turns_apart
        self._text = text
        self._prefix_tokens = prefix_tokens
        self._row_tokens = context_tokens - prefix_tokens
        self._template = ChatTemplate(text, day)
        self._encodings = Encodings(text)  # of the row that `finish` reads
        self._units = Units(text)  # for `encode`

    def prepare(self, row: AnyRow) -> Prepared:
        """The first half of `render`; what is wrong with the row is raised by `finish`."""
        if isinstance(row, PreferenceRow):
            return Prepared(row, [self._conversation(conversation) for conversation in row.conversations])
        if isinstance(row, ChatRow) and not has_two_sides(self._text):
            return Prepared(row, [self._conversation(row)])
        return Prepared(row)

    def encode(self, rows: Sequence[Prepared]) -> Encodings:
        """What `finish` needs of these rows, encoded together; another thread may call it, one at a time."""
        return Encodings(self._text, (asked for row in rows for asked in self._asked(row)), self._units)

    def render(self, row: AnyRow) -> list[Rendered]:
        """Both halves for a single row."""
        return self.finish(self.prepare(row), Encodings(self._text))

    def finish(self, prepared: Prepared, encodings: Encodings) -> list[Rendered]:
        """The sequences of one row. A chat row has several if the template shows a turn differently once others follow.

        A chat row ends with its last trained turn, since later messages cannot change the loss. A pair has two, the
        preferred one first. A text has one for each piece of at most the context. What `encodings` lack is encoded
        here. Raises RenderError.
        """
        row, self._encodings = prepared.row, encodings
        if isinstance(row, TextRow):
            return self._document(row)
        if isinstance(row, PreferenceRow):
            return self._pair(row, prepared.conversations)
        if isinstance(row, ChatRow):
            return self._chat_pairs(row) if has_two_sides(self._text) else self._chat(prepared.conversations[0])
        if isinstance(row, LabelledRow):
            return [self._read(row)]
        if isinstance(row, ContrastiveRow):
            return [self._plain(field, text) for field, text in row.texts.items()]
        if has_two_sides(self._text):
            refuse_special(self._text.special, row.prompt, "prompt")
            prompt = encode_prompt(self._encodings, row.prompt)
            return [self._two_sides(prompt, row.completion, "completion", row.token_weight)]
        try:
            sequence = self._prompt(row)
        except UnknownToken as unknown:
            field = "prompt" if unknown.token in row.prompt else "completion"
            raise RenderError(field, str(unknown)) from unknown
        return [self._fitting(sequence)]

    def _asked(self, prepared: Prepared) -> Iterator[Asked]:
        """What `finish` will encode, as far as it is known already."""
        row = prepared.row
        for conversation in prepared.conversations:
            yield from encoded_for(self._text, conversation.texts())
        if isinstance(row, TextRow):
            yield row.text, True
        elif isinstance(row, PromptRow):
            yield row.prompt, True
            yield (row.completion if has_two_sides(self._text) else row.prompt + row.completion), True
        elif isinstance(row, LabelledRow) and isinstance(row.content, str):
            yield row.content, True
        elif isinstance(row, ContrastiveRow):
            yield from ((text, True) for text in row.texts.values())

    def _document(self, row: TextRow) -> list[Rendered]:
        """The text and the end-of-text token, if the base has one: all trained but the first, which follows none."""
        text = self._text
        refuse_special(text.special, row.text, "text")
        try:
            ids = list(self._encodings.ids(row.text, add_special_tokens=True))
        except UnknownToken as unknown:
            raise RenderError("text", str(unknown)) from unknown
        end_of_text = text.tokenizer.eos_token
        if isinstance(end_of_text, str) and ids[-1:] != [end := text.special_id(end_of_text)]:
            ids.append(end)
        if len(ids) < 2:
            raise RenderError("text", "is one token for the base, which leaves nothing to learn; remove the row")
        return [_flagged(1, piece, row.token_weight) for piece in pieces(ids, self._row_tokens)]

    def _prompt(self, row: PromptRow) -> Rendered:
        """Prompt, completion and end-of-text token; the last two are trained."""
        text = self._text
        refuse_special(text.special, row.prompt, "prompt")
        refuse_special(text.special, row.completion, "completion")
        end_of_text = text.tokenizer.eos_token
        if not isinstance(end_of_text, str):
            raise RenderError(
                "completion", "the base has no end-of-text token to end a completion with; use another base"
            )
        prompt = self._encodings.ids(row.prompt, add_special_tokens=True)
        if not prompt:
            raise RenderError(
                "prompt", "is empty, and the base has no beginning-of-text token to use instead; write a prompt"
            )
        both = self._encodings.ids(row.prompt + row.completion, add_special_tokens=True)
        ids = _joined(text, prompt, both, row.completion, end_of_text)
        return _flagged(len(prompt), [*ids, text.special_id(end_of_text)], row.token_weight)

    def answered(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The tokens of a conversation with its answer, the last of OpenAI's `messages`, as those of a pair's row.

        Raises RenderError, for what is no conversation with an answer too.
        """
        reason = "must be a conversation whose last message is the assistant's answer"
        if messages[-1]["role"] != "assistant":
            raise RenderError("messages", reason)
        if len(messages) == 1:
            raise RenderError("messages", f"{reason}, and nothing stands before it")
        try:
            asked = PreferenceInput.model_validate({"messages": list(messages[:-1])})
        except ValidationError as invalid:
            raise RenderError("messages", f"{reason} ({explained(invalid)})") from invalid
        try:
            answer = Answer.model_validate(messages[-1])
        except ValidationError as invalid:
            place = explained(invalid, "messages", len(messages) - 1, "assistant")
            raise RenderError("messages", f"{reason} ({place})") from invalid
        (sequence,) = self.render(asked.answered(answer))
        return sequence.ids

    def _read(self, row: LabelledRow) -> Rendered:
        """The text, or the conversation up to an answer, as an engine gets it; none of it is trained."""
        content = row.content
        if isinstance(content, str):
            return self._plain(next(name for name in ("text", "prompt") if name in row.model_fields_set), content)
        wire = [message.model_dump(exclude_none=True, exclude={"weight"}) for message in content]
        ids = encode_chat(self._template, wire)
        return self._fitting(Rendered(ids, bytearray(len(ids))))

    def _plain(self, field: str, text: str) -> Rendered:
        """A text as an engine gets it; none of it is trained."""
        refuse_special(self._text.special, text, field)
        try:
            ids = self._encodings.ids(text, add_special_tokens=True)
        except UnknownToken as unknown:
            raise RenderError(field, str(unknown)) from unknown
        if not ids:
            raise RenderError(field, "has no token for the base; write a text, or remove the row")
        return self._fitting(Rendered(ids, bytearray(len(ids))), field)

    def _chat_pairs(self, row: ChatRow) -> list[Rendered]:
        """One pair of sequences for each trained turn of an encoder-decoder: what was said before it, and the turn."""
        wire = [message.model_dump(exclude_none=True) for message in row.messages]
        functions = [tool.function for tool in row.tools] + row.functions
        tools = [{"function": function.model_dump()} for function in functions]
        messages, sequences = template_messages(wire), []
        for index in row.trained:
            field = f"messages[{index}]"
            if index == 0:
                reason = "has no message before it to respond to; add a user message before it, or set its weight to 0"
                raise RenderError(field, reason)
            prompt = encode_chat(self._template, wire[:index], tools)
            answer = written(messages[index], field)
            sequences.append(self._two_sides(prompt, answer, f"{field}.content", row.token_weight(index)))
        return sequences

    def _two_sides(self, prompt: list[int], answer: str, field: str, weight: float) -> Rendered:
        if not prompt:
            raise RenderError("prompt", "is empty, and the base has no token to read instead; write a prompt")
        sequence = _flagged(1, answer_ids(self._text, self._encodings, answer, field), weight)
        return self._fitting(replace(sequence, second=prompt))

    def _conversation(self, row: ChatRow) -> _Conversation:
        """The row as text, up to its first error."""
        turns: list[tuple[str, str]] = []
        messages: Messages = []
        tools: Tools | None = None
        try:
            messages = _template_messages(row.messages[: row.trained[-1] + 1])
            functions = [tool.function for tool in row.tools] + row.functions
            tools = template_tools([{"function": function.model_dump()} for function in functions])
            refuse_special_messages(self._text.special, messages, tools)
            check_complete(self._template, messages, tools, answer_next=False)
            beginnings = self._template.beginnings(messages, tools)
            for index in row.trained:
                turns.append(trained_turn(self._template, messages[: index + 1], tools, beginnings))
        except RenderError as error:
            return _Conversation(row, messages, tools, turns, error)
        return _Conversation(row, messages, tools, turns)

    def _chat(self, conversation: _Conversation) -> list[Rendered]:
        row, messages, tools = conversation.row, conversation.messages, conversation.tools
        encoder = Encoder(self._encodings)
        sequences: list[Rendered] = []
        prompt = ""
        try:
            for index, (prompt, answer) in zip(row.trained, conversation.turns, strict=False):
                turn = self._turn(encoder, prompt, answer)
                if len(turn.ids) > self._row_tokens:
                    raise self._too_long(self._turn(encoder, *trained_turn(self._template, messages, tools)))
                weighted = _weighted(turn, row.token_weight(index))
                if self._turns_apart:
                    sequences.append(weighted)
                else:
                    _add(sequences, weighted)
        except UnknownToken as unknown:
            raise _beyond(unknown, messages, tools) from unknown
        if conversation.error is not None:
            raise conversation.error
        check_words(self._template, messages[:-1], tools, prompt)
        return sequences

    def _pair(self, row: PreferenceRow, conversations: Sequence[_Conversation]) -> list[Rendered]:
        preferred, other = (
            self._answer(conversation, field) for field, conversation in zip(row.fields, conversations, strict=True)
        )
        if preferred.ids == other.ids:
            reason = f"gives the base the same tokens as {row.fields[0]}; make the two answers differ"
            raise RenderError(row.fields[1], reason)
        return [preferred, other]

    def _answer(self, conversation: _Conversation, answer_field: str) -> Rendered:
        """One conversation of a pair. Raises RenderError with the field names of the pair."""
        try:
            (sequence,) = self._chat(conversation)
        except RenderError as error:
            field = _pair_field(error.field, len(conversation.row.messages) - 1, answer_field)
            raise RenderError(field, error.reason) from error
        return sequence

    def _turn(self, encoder: Encoder, prompt: str, answer: str) -> Rendered:
        """The prompt that an engine gets, and the answer, as tokens."""
        prompt_ids, both_ids = encoder.encode(prompt), encoder.encode(prompt + answer)
        end = [match[0] for match in self._text.special.finditer(answer)][-1]
        return _flagged(len(prompt_ids), _joined(self._text, prompt_ids, both_ids, answer, end))

    def _fitting(self, sequence: Rendered, field: str = "") -> Rendered:
        if sequence.num_tokens > self._row_tokens:
            raise self._too_long(sequence, field)
        return sequence

    def _too_long(self, sequence: Rendered, field: str = "") -> RenderError:
        most = f"at most {self._row_tokens}"
        if self._prefix_tokens:
            most += f" beside the {self._prefix_tokens} of the tuning"
        return RenderError(field, f"is too long for the base ({sequence.num_tokens} tokens, {most}); shorten it")


def _template_messages(messages: Sequence[Message]) -> Messages:
    """What `template_messages` makes of these; those of a role, a content and a name need little for that."""
    plain = [_plain_message(message) for message in messages]
    known = [message for message in plain if message is not None]
    if len(known) == len(messages):
        return known
    return template_messages([message.model_dump(exclude_none=True) for message in messages])


def _plain_message(message: Message) -> JsonObject | None:
    match message:
        case UserMessage() | SystemMessage():
            pass
        case AssistantMessage(reasoning_content=None, reasoning=None, tool_calls=[], function_call=None, content=str()):
            pass
        case _:
            return None
    plain = {"role": message.role, "content": message.content}
    return plain if message.name is None else plain | {"name": message.name}


def _beyond(unknown: UnknownToken, messages: Messages, tools: Tools | None) -> RenderError:
    """The error with the field in which the user wrote the token; the template may have written it instead."""
    for index, message in enumerate(messages):
        for key, value in message.items():
            if any(unknown.token in text for text in strings(value)):
                return RenderError(f"messages[{index}].{key}", str(unknown))
    written = any(unknown.token in text for text in strings(tools))
    return RenderError("tools" if written else "messages", str(unknown))


def _pair_field(field: str, answer_index: int, answer_field: str) -> str:
    """The path in the pair's row of `field`, a path in one of its two conversations."""
    message = _MESSAGE.match(field)
    if message is not None and int(message[1]) == answer_index:
        return f"{answer_field}[0]{field[message.end() :]}"
    return f"input.{field}" if field else answer_field


def _flagged(num_prompt_tokens: int, ids: list[int], weight: float = 1.0) -> Rendered:
    return _weighted(Rendered(ids, bytearray(num_prompt_tokens) + b"\x01" * (len(ids) - num_prompt_tokens)), weight)


def _weighted(sequence: Rendered, weight: float) -> Rendered:
    """The sequence with this weight for each trained token."""
    return sequence if weight == 1 else replace(sequence, weights=[weight * flag for flag in sequence.trained])


def _weights(sequence: Rendered) -> list[float]:
    return [float(flag) for flag in sequence.trained] if sequence.weights is None else sequence.weights


def _add(sequences: list[Rendered], turn: Rendered) -> None:
    """Extends the sequence that the turn begins with, or adds the turn as a sequence of its own."""
    for known in sorted(sequences, key=lambda sequence: -len(sequence.ids)):
        if turn.ids[: len(known.ids)] == known.ids:
            if known.weights is not None or turn.weights is not None:
                known.weights = _weights(known) + _weights(turn)[len(known.ids) :]
            known.trained += turn.trained[len(known.ids) :]
            known.ids = turn.ids
            return
    sequences.append(turn)


def _joined(base: BaseText, prompt: list[int], both: list[int], answer: str, special: str) -> list[int]:
    """Ids that begin with exactly `prompt` and continue with `answer`.

    These are `both` (prompt and answer tokenised as one text) if no token crosses the boundary. Otherwise the answer is
    tokenised separately: after `special`, so that no tokenizer treats it as the beginning of a text, or, if the
    tokenizer adds a space even there, after a character that stays a token of its own. Raises RenderError if none of
    these decodes to the same text.
    """
    if both[: len(prompt)] == prompt:
        return both
    whole = base.tokenizer.decode(both)
    for ids in _alone(base, answer, special):
        if base.tokenizer.decode(prompt + ids) == whole:
            return prompt + ids
    raise RenderError(
        "", "the base's tokenizer merges the end of the prompt with the beginning of the answer; change the text there"
    )


def _alone(base: BaseText, answer: str, special: str) -> Iterator[list[int]]:
    yield base.ids(special + answer, add_special_tokens=False)[1:]
    for anchor in _ANCHORS:
        encoding = base.tokenizer(anchor + answer, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends = [end for _, end in encoding["offset_mapping"]]
        if len(anchor) in ends:  # no token crosses the boundary
            first = len(ends) - ends[::-1].index(len(anchor))
            ids = list(encoding["input_ids"])[first:]
            base.check(ids)
            yield ids
