"""What a command prints: data on stdout as a table, as JSON or as ids; everything else on stderr.

Tables go to people and JSON to programs: the JSON is what the service sent, one array or object per command. Control
characters never reach a terminal: names and texts of others could clear it, or colour what they say as ours.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from luthier.records import Record

R = TypeVar("R", bound="Record")


class Format(str, Enum):
    """What `-o` takes."""

    table = "table"
    json = "json"
    id = "id"


Output = Annotated[Format, typer.Option("--output", "-o", help="How data is printed on stdout.")]

WIDEST = 10_000  # columns of what is no terminal
# Of Unicode's category Cc all but tab and line feed, and those that turn the direction of what follows.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

Force = Annotated[bool, typer.Option("--force", help="Replace a file that exists.")]

Column = tuple[str, Callable[[R], object]]


def console() -> "Console":
    """For data."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def messages() -> "Console":
    """For people: progress and what to do next."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def visible(text: str) -> str:
    """`text` with control characters as they are written in JSON (`\\u001b`); lines and tabs stay."""
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def line(text: object, *, end: bool = True) -> None:
    """Data on stdout: exactly as it is where a program reads it, visible where a terminal shows it."""
    shown = visible(str(text)) if sys.stdout is not None and sys.stdout.isatty() else str(text)
    typer.echo(shown, nl=end, color=True)  # nothing is taken out


def note(text: str) -> None:
    """One line on stderr."""
    typer.echo(visible(text), err=True)


def prose(text: str) -> None:
    """Sentences on stderr, which a terminal breaks between words."""
    from rich.text import Text

    screen = messages()
    screen.print(Text(visible(text)), soft_wrap=not screen.is_terminal)


def print_json(value: Any) -> None:
    """Characters that the output cannot hold, and control characters, are escaped."""
    encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
    plain = encoding.lower().replace("-", "") != "utf8"
    typer.echo(visible(json.dumps(value, indent=2, ensure_ascii=plain)))


def print_records(records: Iterable[R], columns: Sequence[Column[R]], output: Format) -> None:
    """A list of objects."""
    if output is Format.json:
        print_json([record.to_dict() for record in records])
    elif output is Format.id:
        for record in records:
            line(record.to_dict()["id"])
    else:
        print_table([name for name, _ in columns], [[show(record) for _, show in columns] for record in records])


def print_record(record: "Record", output: Format) -> None:
    """One object, every field."""
    if output is Format.json:
        print_json(record.to_dict())
    elif output is Format.id:
        line(record.to_dict()["id"])
    else:
        print_table(["field", "value"], [[name, _flat(name, value)] for name, value in record.to_dict().items()])


def print_table(names: Sequence[str], rows: Sequence[Sequence[object]], screen: "Optional[Console]" = None) -> None:
    """Columns as wide as what is in them, on stdout if no other is given; without a terminal nothing is cut off.

    A terminal that is too narrow for the longest words, such as ids, gets a line per cell instead: one that the
    terminal itself breaks can be copied whole.
    """
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    screen = screen or console()
    cells = [["" if cell is None else visible(str(cell)) for cell in row] for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(Text(visible(name)), overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    narrowest = Measurement.get(screen, screen.options.update(max_width=WIDEST), table).minimum
    if screen.is_terminal and narrowest > screen.width:
        for text in _lines([visible(name) for name in names], cells):
            screen.print(Text(text), soft_wrap=True)
        return
    if not screen.is_terminal:
        screen.width = WIDEST
        screen.width = max(80, screen.measure(table).maximum)
    screen.print(table)


def _lines(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Cells below each other: a row of two is a name and its value, of others each cell has its column's name."""
    pairs = [[row] if len(names) == 2 else list(zip(names, row)) for row in rows]
    longest = max((len(name) for row in pairs for name, _ in row), default=0)
    for number, row in enumerate(pairs):
        if len(names) != 2 and number:
            yield ""
        for name, value in row:
            yield f"{name:{longest}}  {value}".rstrip()


def when(seconds: object) -> str:
    """A unix time in the time of this machine; nothing for what is unknown, such as when a base was made (0)."""
    if not isinstance(seconds, (int, float)) or seconds == 0:
        return ""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """`42 s`, `5 min` or `2.2 h`."""
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.0f} s"


def size(length: int) -> str:
    """`3.2 MB`."""
    amount = float(length)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def _flat(name: str, value: Any) -> str:
    if name.endswith("_at") and isinstance(value, int):
        return when(value)
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
