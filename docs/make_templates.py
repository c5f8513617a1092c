"""Writes docs/templates.md from what real chat templates do with rows of every kind: `python -m docs.make_templates`.

The templates are TRL's collection, which `tests.servers.chat_templates` fetches. A test holds the page current.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.given.templates.families import ROWS, family_text
from tests.given.templates.rendering import chat_row
from tests.servers.chat_templates import WHEEL, fetch, read_templates
from workers.data.base_text import BaseText
from workers.data.messages import RenderError
from workers.data.render import Renderer

PAGE = Path(__file__).resolve().parent / "templates.md"
HEAD = """\
# Chat templates

What the chat templates of known families make of a training row. The rules are those of
[what is trained on](methods.md#what-is-trained-on); a chat completion of the embedded engine is refused for the same
things. **yes**: the row trains, every word of the answer and the token that ends it. A number: the row is refused with
that sentence of the list below, since the template does not show such a message, or its generation prompt contradicts
it. `reasoning` is a row with `reasoning_content`; `inline` has its thoughts in the content, between `<think>` and
`</think>`.

A template that is not in the table is treated the same way: nothing is known of any by its name.
This page is written by `python -m docs.make_templates` from the templates in the wheel of TRL 1.16.0.

"""


def main() -> None:
    """Fetches the templates and rewrites the page."""
    fetch()
    PAGE.write_text(render(read_templates(WHEEL)), encoding="utf-8")


def render(templates: Mapping[str, str]) -> str:
    """The page for these templates by their names."""
    reasons: dict[str, int] = {}
    lines = [f"| family | {' | '.join(ROWS)} |", "|---|" + "---|" * len(ROWS)]
    for name, template in templates.items():
        text = family_text(name, template)
        cells = [_cell(_refusal(text, row), reasons) for row in ROWS.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    num_trained = sum(line.count("| yes ") for line in lines)
    total = len(templates) * len(ROWS)
    sentences = [f"{number}. {reason}" for reason, number in reasons.items()]
    count = f"{num_trained} of {total} cells train.\n"
    return HEAD + "\n".join(lines) + "\n\n" + count + "\n## Sentences\n\n" + "\n".join(sentences) + "\n"


def _refusal(text: BaseText, row: dict[str, Any]) -> str | None:
    try:
        Renderer(text).render(chat_row(row))
    except RenderError as error:
        return error.reason
    return None


def _cell(reason: str | None, reasons: dict[str, int]) -> str:
    if reason is None:
        return "yes"
    return str(reasons.setdefault(f"`{reason}`", len(reasons) + 1))


if __name__ == "__main__":
    main()
