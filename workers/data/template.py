"""Renders a conversation as text with a base's chat template, and finds out what the template supports.

No template is known by its name: what it shows, and in which form it expects it, is found by rendering small
conversations. Handles text only; `workers.data.render` tokenises it, `workers.data.turn` finds the bounds of a turn.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from functools import cache, cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from service.domain.json import JsonObject
from workers.data.base_text import BaseText
from workers.data.messages import LEGACY_CALL_ID, REASONING, Dialect, Messages, RenderError, Tools
from workers.data.whole_rendering import TEMPLATE_ERRORS, Beginnings, WholeRendering

MARK, THOUGHT, NAME, ARGUMENT = "luthier-mark", "luthier-thought", "luthier_name", "luthier-argument"
_KEY = {"type": "string", "description": "A key."}
_PARAMETERS = {"type": "object", "properties": {"key": _KEY}, "required": ["key"]}
_TOOL = {"type": "function", "function": {"name": NAME, "description": "Looks.", "parameters": _PARAMETERS}}
# The directives of strftime that a date without a time zone has.
_DIRECTIVES = (*"aAbBcdDeFhHIjklmMpSTuUVwWxXyYGgCR", "-d", "-m", "-H", "-I", "-j", "-M", "-S", "-y")
_PERCENT = "\ue000"  # in no format
_TAG_BEFORE = re.compile(r"(<[^<>/\s|｜]+>)\s*$")
_TAG_BEHIND = re.compile(r"\s*(</[^<>\s|｜]+>)")
_PLAIN = frozenset({"role", "content", "name"})  # transformers gives none of them another name or value


class ChatTemplate:
    """The chat template of one base. `day` is the current date that it gets; None is the real one."""

    def __init__(self, text: BaseText, day: date | None = None) -> None:
        self.text = text
        self._day = day
        self.shapes_seen: set[tuple[object, ...]] = set()  # for `workers.data.complete`

    def render(self, messages: Messages, tools: Tools | None = None, *, answer_next: bool) -> str:
        """The conversation as the base sees it; with `answer_next`, up to where the assistant's answer begins.

        Raises RenderError with the template's own message.
        """
        return self._apply(self.dialect.spell(messages), tools, answer_next)

    def beginnings(self, messages: Messages, tools: Tools | None) -> Beginnings | None:
        """What `render` returns for all beginnings of these messages, rendered once; None where that is not possible.

        Where the template raises, it is None too: which beginnings can be rendered shows when each is.
        """
        if tools is not None or self._plain is None or not (self.dialect.developer or _no_developer(messages)):
            return None
        spelled = self.dialect.spell(messages)
        if not PlainRendering.takes(spelled):
            return None
        try:
            return self._plain.beginnings(spelled)
        except TEMPLATE_ERRORS:
            return None

    def on(self, day: date | None) -> "ChatTemplate":
        """The same template with another current date."""
        other = ChatTemplate(self.text, day)
        other.__dict__ |= {"dialect": self.dialect, "thought_tags": self.thought_tags, "shapes_seen": self.shapes_seen}
        return other

    @cached_property
    def dialect(self) -> Dialect:
        """The form in which the template expects messages."""
        template = str(self.text.tokenizer.chat_template)
        # vLLM's own rule, so that training and serving treat a developer alike.
        dialect = Dialect(developer='"developer"' in template or "'developer'" in template)
        said = _question({"role": "assistant", "content": MARK})
        if not self._shows(dialect, said, MARK):
            parts = replace(dialect, parts=True)
            dialect = parts if self._shows(parts, said, MARK) else dialect
        dialect = next(filter(self._shows_calls, _with_calls(dialect)), replace(dialect, calls=False))
        answers = {"role": "assistant", "content": MARK}, _call(1)  # some show reasoning only before a call
        for answer in answers if dialect.calls else answers[:1]:
            for name in (REASONING, "reasoning", "thinking"):
                thinking = replace(dialect, reasoning=name)
                if self._shows(thinking, _question(answer | {REASONING: THOUGHT}), THOUGHT):
                    return thinking
        return dialect

    @cached_property
    def shows_tools(self) -> bool:
        """Whether a prompt has the functions that its request offers."""
        return self._shows(self.dialect, _question(), NAME, tools=[_TOOL])

    @cached_property
    def thought_tags(self) -> tuple[str, str] | None:
        """The tags around the thoughts of an answer, such as <think> and </think>; None if there are none."""
        if not self.dialect.reasoning:
            return None
        thought = _question({"role": "assistant", "content": MARK, REASONING: THOUGHT})
        before, _, after = self.render(thought, answer_next=False).partition(THOUGHT)
        opening, closing = _TAG_BEFORE.search(before), _TAG_BEHIND.match(after)
        return (opening[1], closing[1]) if opening and closing else None

    @cached_property
    def end_of_thoughts(self) -> str:
        """The tag that closes an answer's thoughts, even if only the generation prompt opens them; else empty."""
        if self.thought_tags:
            return self.thought_tags[1]
        try:
            opening = _TAG_BEFORE.search(self.render(_question(), answer_next=True))
        except RenderError:
            return ""
        return f"</{opening[1][1:]}" if opening and not self.text.special.search(opening[1]) else ""

    @cached_property
    def end_of_turn(self) -> str:
        """The special token after an assistant's answer. Raises RenderError.

        Some templates write more after the last answer, or end an answer only if another message follows.
        """
        final = self._behind(answer_next=False)
        followed = self._behind({"role": "user", "content": "Hello"}, answer_next=False)
        shared = shared_start(final, followed)
        for closing in (shared, final):
            found = [match[0] for match in self.text.special.finditer(closing)]
            if found:
                return next((token for token in found if token in self.text.end_tokens), found[0])
        begins_next = self.text.special.search(followed)
        if begins_next and begins_next[0] in self.text.end_tokens:
            return begins_next[0]
        raise RenderError(
            "messages", "the base's chat template does not end answers with a special token; use another base"
        )

    @cached_property
    def ends(self) -> frozenset[str]:
        """Every token that ends an answer; engines stop at these. Without a chat template, the end-of-text token."""
        ends = set(self.text.end_tokens)
        try:
            ends |= {self.end_of_turn}
        except RenderError:
            return frozenset(ends)
        return frozenset(ends | ({self.end_of_call} if self.end_of_call else set()))

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The tokens at which generation stops: those that the base's own settings name, and `ends`."""
        return self.text.end_ids | set(map(self.text.special_id, self.ends))

    @cached_property
    def end_of_call(self) -> str:
        """The special token after a tool call, unless `end_of_turn` or an end token of the base follows; else empty.

        A token that also separates two calls does not end them.
        """
        known = self.text.end_tokens | {self.end_of_turn}
        try:
            one = self._called(1)
            found = [match[0] for match in self.text.special.finditer(one)]
            if not found or known & set(found) or not one.rstrip().endswith(found[-1]):
                return ""
            return found[-1] if self._called(2).count(found[-1]) == 1 else ""
        except RenderError:
            return ""

    def following(self, *, called: bool) -> str:
        """The text after an answer (or call) up to and including the token that begins the next message.

        For templates without an end of turn: the base ends its answer by beginning the next message. Empty if that
        token is not an end token of the base.
        """
        answer = _call(1) if called else {"role": "assistant", "content": MARK}
        after = (
            {"role": "tool", "tool_call_id": LEGACY_CALL_ID, "name": NAME, "content": MARK}
            if called
            else {"role": "user", "content": MARK}
        )
        try:
            alone = self.render(_question(answer), [_TOOL] if called else None, answer_next=False)
            followed = self.render(_question(answer, after), [_TOOL] if called else None, answer_next=False)
        except RenderError:
            return ""
        if not followed.startswith(alone):
            return ""
        token = self.text.special.search(followed, len(alone))
        return followed[len(alone) : token.end()] if token and token[0] in self.text.end_tokens else ""

    @cached_property
    def prints_the_date(self) -> bool:
        """Whether its output depends on the current date."""
        days = (date(2001, 2, 3), date(2014, 11, 25))
        try:
            texts = {ChatTemplate(self.text, day)._apply(_question(), None, answer_next=True) for day in days}
        except RenderError:
            return False
        return len(texts) > 1

    def _apply(self, messages: Messages, tools: Tools | None, answer_next: bool) -> str:
        try:
            if tools is None and self._plain is not None and PlainRendering.takes(messages):
                return self._plain.render(messages, answer_next=answer_next)
            template = self._source(tools)
            text = self.text.tokenizer.apply_chat_template(
                messages,
                chat_template=template,
                tools=tools,
                tokenize=False,
                add_generation_prompt=answer_next,
            )
        except TEMPLATE_ERRORS as error:
            reason = f"the base's chat template rejects this conversation: {str(error)[:200]}"
            raise RenderError("messages", reason) from error
        assert isinstance(text, str)
        return text

    def _source(self, tools: Tools | None) -> str:
        """The template for a conversation with these tools, with the clock of this day."""
        template = str(self.text.tokenizer.get_chat_template(None, tools))
        return _dated(self._day) + template if self._day is not None and "strftime_now" in template else template

    @cached_property
    def _plain(self) -> "PlainRendering | None":
        """None where the tokenizer has a way of its own to apply a template."""
        tokenizer = self.text.tokenizer
        return PlainRendering(tokenizer, self._source(None)) if _is_plain(tokenizer) else None

    def _shows(self, dialect: Dialect, messages: Messages, *marks: str, tools: Tools | None = None) -> bool:
        try:
            text = self._apply(dialect.spell(messages), tools, answer_next=False)
        except RenderError:
            return False
        return all(mark in text for mark in marks)

    def _shows_calls(self, dialect: Dialect) -> bool:
        return self._shows(dialect, _question(_call(1)), NAME, ARGUMENT, tools=[_TOOL])

    def _behind(self, *after: JsonObject, answer_next: bool) -> str:
        messages = _question({"role": "assistant", "content": MARK}, *after)
        return self.render(messages, answer_next=answer_next).partition(MARK)[2]

    def _called(self, num_calls: int) -> str:
        """The rendered text after the first argument of an assistant's calls."""
        return self.render(_question(_call(num_calls)), [_TOOL], answer_next=False).partition(ARGUMENT)[2]


class PlainRendering:
    """The short way for conversations that are texts alone: the template that transformers compiled, with what every
    rendering's context begins with.

    `apply_chat_template` copies every message, drops nulls, gives reasoning its other names and builds a new context
    with every call. For messages of a role, a content and a name, all texts, and without tools, nothing of this changes
    what the template sees. All other conversations go through `apply_chat_template`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        """Raises jinja2's TemplateError."""
        self._source = template
        self._template = _compile_jinja_template(template)
        self._context = {
            **self._template.globals,
            **tokenizer.special_tokens_map,
            "tools": None,
            "documents": None,
        }

    @staticmethod
    def takes(messages: Messages) -> bool:
        """Whether `apply_chat_template` would leave these messages as they are."""
        return bool(messages) and all(
            _PLAIN.issuperset(message) and all(type(value) is str for value in message.values()) for message in messages
        )

    def render(self, messages: Messages, *, answer_next: bool) -> str:
        """What `apply_chat_template` returns for messages that it `takes`. Raises what the template raises."""
        names = self._context | {"messages": messages, "add_generation_prompt": answer_next}
        context = self._template.new_context(names, shared=True)
        return "".join(self._template.root_render_func(context))

    def beginnings(self, messages: Messages) -> Beginnings | None:
        """All beginnings of messages that it `takes`, rendered once; None where they are not parts of one text.

        Raises what the template raises.
        """
        return None if self._whole is None else self._whole.render(messages)

    @cached_property
    def _whole(self) -> WholeRendering | None:
        return WholeRendering.of(self._template.environment, self._source, self._context)


def _is_plain(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer has no way of its own to apply a template."""
    return type(tokenizer).apply_chat_template is PreTrainedTokenizerBase.apply_chat_template


def refuse_special(pattern: re.Pattern[str], value: Any, field: str) -> None:
    """Raises RenderError if a text of the user's would be tokenised as a special token."""
    for text in (value,) if isinstance(value, str) else strings(value):
        if found := pattern.search(text):
            raise RenderError(field, f"contains {found[0]!r}, a special token of the base; write it differently")


def refuse_special_messages(pattern: re.Pattern[str], messages: Messages, tools: Tools | None) -> None:
    """`refuse_special` for all messages and tools that a template gets."""
    for index, message in enumerate(messages):
        for key, value in message.items():
            refuse_special(pattern, value, f"messages[{index}].{key}")
    refuse_special(pattern, tools, "tools")


def strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value, including the keys of objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(key)
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


@cache
def _dated(day: date) -> str:
    """A prefix for a template that sets its clock to midnight of `day`.

    Templates call strftime_now(format), which transformers provides and which only the template can override.
    """
    midnight = datetime(day.year, day.month, day.day)
    written = {"%" + letter: midnight.strftime("%" + letter) for letter in _DIRECTIVES}
    replaced = {"%%": _PERCENT} | written | {_PERCENT: "%"}  # in this order: %%d is not the day
    filters = "".join(f"|replace('{directive}', '{text}')" for directive, text in replaced.items())
    return "{% macro strftime_now(format) %}{{ format" + filters + " }}{% endmacro %}\n"


def _no_developer(messages: Messages) -> bool:
    return all(message["role"] != "developer" for message in messages)


def _question(*after: JsonObject) -> Messages:
    return [{"role": "user", "content": "Hello"}, *after]


def _call(num_calls: int) -> JsonObject:
    function = {"name": NAME, "arguments": {"key": ARGUMENT}}
    calls = [{"id": f"call0000{number}", "type": "function", "function": function} for number in range(num_calls)]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _with_calls(dialect: Dialect) -> Iterator[Dialect]:
    """The forms of a tool call, vLLM's own first."""
    for call_text in (False, True):
        for call_null in (False, True):
            yield replace(dialect, call_text=call_text, call_null=call_null)


def shared_start(one: str, other: str) -> str:
    """The longest common prefix."""
    length = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return one[: min(len(one), len(other)) if length is None else length]
