"""Draws docs/architecture.svg from the tables below: `python -m docs.make_picture`.

Boxes and arrows are placed by hand, in pixels; x grows to the right, y downward. The picture has its own background and
its own colours for light and dark, since an image in a page cannot read the page's. A test holds the file current.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

FILE = Path(__file__).with_name("architecture.svg")
WIDTH, HEIGHT = 980, 480
ALT = "Client, API, engine, worker and trainer, with the database, the bell and the storage between them."


@dataclass(frozen=True)
class Box:
    """A process, which has code of ours in it, or a part, which is somebody else's server or a folder."""

    kind: Literal["outside", "process", "part"]
    x: int
    y: int
    width: int
    title: str
    lines: tuple[str, ...]
    height: int = 70


@dataclass(frozen=True)
class Arrow:
    """A line through `points`, each of which turns it by a right angle; the label stands beside its first piece."""

    points: tuple[tuple[int, int], ...]
    label: tuple[str, ...]
    both: bool = False  # bytes go both ways; otherwise the arrow points to what is called, or to where they go
    side: Literal["right", "left", "above"] = "right"


BOXES = (
    Box("outside", 24, 36, 150, "client", ("OpenAI's SDKs,", "curl")),
    Box("process", 310, 36, 290, "API", ("luthierd serve", "service/")),
    Box("process", 730, 36, 226, "engine", ("embedded, or vLLM + plugin", "workers/engines/")),
    Box("part", 210, 205, 180, "database", ("SQLite or PostgreSQL", "all state")),
    Box("part", 405, 205, 130, "bell", ("Redis, or none", "no state")),
    Box("part", 550, 205, 250, "storage", ("a folder or S3", "files, snapshots, adapters")),
    Box("process", 310, 374, 290, "worker", ("luthier-worker train", "workers/supervisor/, workers/jobs/")),
    Box("process", 24, 374, 182, "trainer", ("one base, several jobs", "workers/trainer/")),
)
ARROWS = (
    Arrow(((174, 71), (310, 71)), ("HTTP,", "OpenAI's API"), side="above"),
    Arrow(((600, 71), (730, 71)), ("HTTP,", "vLLM's dialect"), side="above"),
    Arrow(((350, 106), (350, 205)), ("one transaction", "per request"), both=True, side="left"),
    Arrow(((465, 106), (465, 205)), ("rings after", "the commit")),
    Arrow(((575, 106), (575, 205)), ("uploads,", "downloads"), both=True),
    Arrow(((770, 205), (770, 106)), ("adapters,", "by name")),
    Arrow(((350, 374), (350, 275)), ("claims, leases,", "events"), both=True, side="left"),
    Arrow(((465, 275), (465, 374)), ("wakes",)),
    Arrow(((575, 374), (575, 275)), ("rows, snapshots,", "trained adapters"), both=True),
    Arrow(((310, 409), (206, 409)), ("pipes and", "folders"), both=True, side="above"),
    Arrow(((600, 409), (890, 409), (890, 106)), ("does the engine compute", "what was trained?"), side="above"),
)

STYLE = """\
    text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2933; text-anchor: middle }
    .title { font-size: 16px; font-weight: 600 }
    .label { font-size: 12px; fill: #52606d }
    .right { text-anchor: start }
    .left { text-anchor: end }
    .page { fill: #ffffff }
    .outside { fill: #f5f7fa; stroke: #9aa5b1 }
    .process { fill: #e3f0fb; stroke: #3b82c4 }
    .part { fill: #fbf3e0; stroke: #c08a2b }
    .arrow { fill: none; stroke: #616e7c; stroke-width: 1.5 }
    .head { fill: #616e7c }
"""
DARK = """\
      text { fill: #e4e7eb }
      .label { fill: #b8c2cc }
      .page { fill: #161b22 }
      .outside { fill: #222933; stroke: #7b8794 }
      .process { fill: #16304a; stroke: #5aa2e0 }
      .part { fill: #3a2e14; stroke: #d2a24c }
      .arrow { stroke: #9aa5b1 }
      .head { fill: #9aa5b1 }
"""
LINE = 17  # pixels from one line of a text to the next
HEAD = 7  # pixels that an arrow's head is long


def main() -> None:
    """Rewrites the file."""
    FILE.write_text(render(), encoding="utf-8")


def render(dark: bool = False) -> str:
    """The picture; `dark` shows the dark colours without asking the viewer's preference."""
    style = STYLE + (DARK if dark else f"    @media (prefers-color-scheme: dark) {{\n{DARK}    }}\n")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'role="img" aria-label={quoteattr(ALT)}>',
            f"  <style>\n{style}  </style>",
            f'  <rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="10"/>',
            *(part for arrow in ARROWS for part in _arrow(arrow)),
            *(part for box in BOXES for part in _box(box)),
            "</svg>\n",
        ]
    )


def _box(box: Box) -> list[str]:
    middle = box.x + box.width // 2
    size = f'x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}"'
    return [
        f'  <rect class="{box.kind}" {size} rx="{8 if box.kind == "process" else 22}"/>',
        _text(middle, box.y + 24, "title", box.title),
        *(_text(middle, box.y + 25 + LINE * number, "", line) for number, line in enumerate(box.lines, start=1)),
    ]


def _arrow(arrow: Arrow) -> list[str]:
    path = " ".join(f"{x},{y}" for x, y in arrow.points)
    heads = [_head(arrow.points[-2], arrow.points[-1])] + [_head(arrow.points[1], arrow.points[0])] * arrow.both
    return [f'  <polyline class="arrow" points="{path}"/>', *heads, *_label(arrow)]


def _label(arrow: Arrow) -> list[str]:
    (x0, y0), (x1, y1) = arrow.points[:2]
    middle_x, middle_y = (x0 + x1) // 2, (y0 + y1) // 2
    if arrow.side == "above":
        first, x = middle_y - 8 - LINE * (len(arrow.label) - 1), middle_x
    else:
        first, x = middle_y + 4 - LINE * (len(arrow.label) - 1) // 2, middle_x + (8 if arrow.side == "right" else -8)
    return [_text(x, first + LINE * number, f"label {arrow.side}", line) for number, line in enumerate(arrow.label)]


def _head(start: tuple[int, int], tip: tuple[int, int]) -> str:
    """A triangle at `tip`, seen from `start`; both lie on one horizontal or vertical line."""
    along_x, along_y = (tip[0] > start[0]) - (tip[0] < start[0]), (tip[1] > start[1]) - (tip[1] < start[1])
    back_x, back_y = tip[0] - HEAD * along_x, tip[1] - HEAD * along_y
    half = HEAD // 2 + 1
    side_x, side_y = half * along_y, half * along_x
    corners = [tip, (back_x - side_x, back_y - side_y), (back_x + side_x, back_y + side_y)]
    points = " ".join(f"{x},{y}" for x, y in corners)
    return f'  <polygon class="head" points="{points}"/>'


def _text(x: int, y: int, kind: str, text: str) -> str:
    return f'  <text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>'


if __name__ == "__main__":
    main()
