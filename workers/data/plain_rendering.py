"""Renders conversations that are texts alone with the template that transformers compiled, by the shortest way.

`apply_chat_template` copies every message, drops nulls, gives reasoning its other names and builds a new context
with every call. For messages of a role, a content and a name, all texts, and without tools, nothing of this changes
what the template sees. All other conversations go through `apply_chat_template` (`workers.data.template`).
"""

from functools import cached_property

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from workers.data.messages import Messages
from workers.data.whole_rendering import Beginnings, WholeRendering

_PLAIN = frozenset({"role", "content", "name"})  # transformers gives none of them another name or value


class PlainRendering:
    """One template of one tokenizer, with what every rendering's context begins with."""

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

    def render(self, messages: Messages, *, answer_next: bool) -> str:
        """What `apply_chat_template` returns for messages that `takes`. Raises what the template raises."""
        names = self._context | {"messages": messages, "add_generation_prompt": answer_next}
        context = self._template.new_context(names, shared=True)
        return "".join(self._template.root_render_func(context))

    def beginnings(self, messages: Messages) -> Beginnings | None:
        """All beginnings of messages that `takes`, rendered once; None where they are not parts of one text.

        Raises what the template raises.
        """
        return None if self._whole is None else self._whole.render(messages)

    @cached_property
    def _whole(self) -> WholeRendering | None:
        return WholeRendering.of(self._template.environment, self._source, self._context)


def takes(messages: Messages) -> bool:
    """Whether `apply_chat_template` would leave these messages as they are."""
    return bool(messages) and all(
        _PLAIN.issuperset(message) and all(type(value) is str for value in message.values()) for message in messages
    )


def is_plain(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer has no way of its own to apply a template."""
    return type(tokenizer).apply_chat_template is PreTrainedTokenizerBase.apply_chat_template
