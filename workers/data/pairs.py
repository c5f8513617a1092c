"""From a preference row to its two sequences, through the renderer that every row goes through.

Both begin with the same prompt; the loss mask lies on the answer and its end-of-turn token.
"""

import re

from service.recipes.formats.chat import ChatRow
from service.recipes.formats.preference import PreferenceRow
from workers.data.messages import RenderError
from workers.data.render import Rendered, Renderer

_MESSAGE = re.compile(r"messages\[(\d+)\]")


def render_pair(renderer: Renderer, row: PreferenceRow) -> list[Rendered]:
    """The preferred sequence, then the other one. Raises RenderError in the row's own field names."""
    preferred, other = (
        _render(renderer, conversation, field)
        for field, conversation in zip(row.fields, row.conversations, strict=True)
    )
    if preferred.ids == other.ids:
        reason = f"reads to the base exactly like {row.fields[0]}: the pair prefers nothing"
        raise RenderError(row.fields[1], reason)
    return [preferred, other]


def _render(renderer: Renderer, conversation: ChatRow, answer_field: str) -> Rendered:
    try:
        (sequence,) = renderer.render(conversation)
    except RenderError as error:
        field = _place(error.field, len(conversation.messages) - 1, answer_field)
        raise RenderError(field, error.reason) from error
    return sequence


def _place(field: str, answer_index: int, answer_field: str) -> str:
    """Where in the row stands what the renderer, which sees one conversation, calls `field`."""
    message = _MESSAGE.match(field)
    if message is not None and int(message[1]) == answer_index:
        return f"{answer_field}[0]{field[message.end() :]}"
    return f"input.{field}" if field else answer_field
