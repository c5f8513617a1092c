"""What a command shows in a terminal, as a page that a browser can take a picture of."""

from html import escape

import pyte
from pyte.screens import Char

COLUMNS, LINES = 112, 100
COLOURS = {
    "default": "#d6dae3", "black": "#1c2027", "red": "#ff938a", "green": "#6fd19a", "brown": "#efb763",
    "blue": "#97a3ff", "magenta": "#d79bf0", "cyan": "#6fc9d1", "white": "#eceef2",
}  # fmt: skip
PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: #16181d; }}
pre {{ margin: 0; padding: 18px 22px; display: inline-block; color: #d6dae3;
  font: 13px/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
</style><pre id="screen">{lines}</pre>"""


def as_page(commands: list[tuple[str, str]]) -> str:
    """Each command as it was typed, and the screen that its output left, without blank lines at its end."""
    lines: list[str] = []
    for typed, output in commands:
        screen = pyte.Screen(COLUMNS, LINES)
        pyte.Stream(screen).feed(output)
        rows = [_row(screen, number) for number in range(LINES)]
        while rows and not rows[-1].strip():
            rows.pop()
        lines += [f'<span style="color:{COLOURS["green"]}">$</span> {escape(typed)}', *rows, ""]
    return PAGE.format(lines="\n".join(lines[:-1]))


def _row(screen: pyte.Screen, number: int) -> str:
    cells = [screen.buffer[number][column] for column in range(COLUMNS)]
    while cells and cells[-1].data == " ":
        cells.pop()
    return "".join(_cell(cell) for cell in cells)


def _cell(cell: Char) -> str:
    named = COLOURS.get(cell.fg.removeprefix("bright"))
    colour = named or f"#{cell.fg}"
    weight = ";font-weight:600" if cell.bold else ""
    return f'<span style="color:{colour}{weight}">{escape(cell.data)}</span>'
