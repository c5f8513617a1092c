"""`luthier chat`: talk to a model, and to a second one side by side."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from luthier.cli.output import console, line, note, visible
from luthier.cli.session import client, number

if TYPE_CHECKING:
    from luthier.client import Luthier
    from luthier.generated.models import RequestMessageParam


def chat(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The name of the model.")],
    compare: Annotated[Optional[str], typer.Option(help="A second model that gets the same messages.")] = None,
    message: Annotated[
        Optional[str], typer.Option("--message", "-m", help="Ask this once instead of a conversation.")
    ] = None,
    system: Annotated[Optional[str], typer.Option(help="The system message.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 256,
    temperature: Annotated[
        float, typer.Option(min=0, max=2, callback=number, help="0 takes the likeliest token.")
    ] = 0.0,
) -> None:
    """Talk to a model. An empty line or Ctrl-D ends it; without a terminal each line of stdin is one message.

    Example: luthier chat ft:luthier-tiny:luthier:workshop:oNyEo5vJ --compare luthier-tiny
    """
    names = [model] if compare is None else [model, compare]
    start: list[RequestMessageParam] = [] if system is None else [{"role": "system", "content": system}]
    talks = {name: list(start) for name in names}
    options: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature}
    with client() as luthier:
        for asked in _asked(message):
            for talk in talks.values():
                talk.append({"role": "user", "content": asked})
            if compare is None:
                said = {model: _streamed(luthier, model, talks[model], options)}
            else:
                said = {name: _answer(luthier, name, talks[name], options) for name in names}
                _side_by_side(said)
            for name, text in said.items():
                talks[name].append({"role": "assistant", "content": text})


def _asked(message: Optional[str]) -> Iterator[str]:
    if message is not None:
        yield message
    elif sys.stdin.isatty():
        note("An empty line ends the conversation.")
        while True:
            try:
                typer.echo("> ", nl=False, err=True)
                typed = input()
            except (EOFError, KeyboardInterrupt):
                note("")
                return
            if not typed.strip():
                return
            yield typed
    else:
        yield from (one.rstrip("\n") for one in sys.stdin if one.strip())


def _streamed(luthier: "Luthier", model: str, talk: "list[RequestMessageParam]", options: dict[str, Any]) -> str:
    """One answer, printed as it comes."""
    said = []
    with luthier.chat.completions.stream(model=model, messages=talk, **options) as stream:
        for chunk in stream:
            for choice in chunk.get("choices", ()):
                piece = choice.get("delta", {}).get("content") or ""
                said.append(piece)
                line(piece, end=False)
    line("")
    return "".join(said)


def _answer(luthier: "Luthier", model: str, talk: "list[RequestMessageParam]", options: dict[str, Any]) -> str:
    made = luthier.chat.completions.create(model=model, messages=talk, **options)
    return made.choices[0].message.content or ""


def _side_by_side(said: dict[str, str]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    for name in said:
        table.add_column(Text(visible(name)), ratio=1, overflow="fold")
    table.add_row(*[Text(visible(text)) for text in said.values()])
    console().print(table)
