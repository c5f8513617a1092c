"""Questions on a terminal. Without one there is nobody to ask, and Ctrl-C at one ends the command as everywhere."""

import sys
from collections.abc import Callable
from typing import Optional, TypeVar

import typer

from luthier.cli.output import note
from luthier.cli.session import EXIT_INTERRUPTED, EXIT_USAGE

A = TypeVar("A")


def asked(text: str, option: str, *, default: Optional[str] = None, hidden: bool = False) -> str:
    """What is typed. Exits with 2 where there is no terminal: `option` says it instead."""
    if not sys.stdin.isatty():
        note(f"luthier: there is no terminal to ask on; say it with {option}")
        raise typer.Exit(EXIT_USAGE)
    return _answer(lambda: str(typer.prompt(text, default=default, hide_input=hidden, err=True)))


def confirmed(text: str) -> bool:
    """Whether it is; yes if nothing is typed."""
    return _answer(lambda: bool(typer.confirm(text, default=True, err=True)))


def _answer(ask: Callable[[], A]) -> A:
    try:
        return ask()
    except typer.Abort:  # of Ctrl-C, and of an input that has ended
        note("")
        raise typer.Exit(EXIT_INTERRUPTED) from None
