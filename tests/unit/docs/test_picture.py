"""The picture of docs/architecture.md: current, and drawn so that it can be read."""

from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

from docs.make_picture import ARROWS, BOXES, FILE, HEIGHT, WIDTH, Arrow, Box, render

CHARACTER = 7.5  # pixels, of the text in a box
MARGIN = 8


def overlapping(boxes: tuple[Box, ...]) -> list[str]:
    """Pairs of boxes that cover each other."""
    return [
        f"{a.title}, {b.title}"
        for a, b in combinations(boxes, 2)
        if a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height
    ]


def too_wide(boxes: tuple[Box, ...]) -> list[str]:
    """Lines that do not fit into their box."""
    return [line for box in boxes for line in box.lines if len(line) * CHARACTER > box.width - MARGIN]


def loose(arrow: Arrow, boxes: tuple[Box, ...]) -> bool:
    """Whether one of its ends does not touch the border of a box."""
    return not all(any(_touches(end, box) for box in boxes) for end in (arrow.points[0], arrow.points[-1]))


def _touches(end: tuple[int, int], box: Box) -> bool:
    inside_x, inside_y = box.x <= end[0] <= box.x + box.width, box.y <= end[1] <= box.y + box.height
    return inside_x and inside_y and (end[0] in (box.x, box.x + box.width) or end[1] in (box.y, box.y + box.height))


def test_the_committed_picture_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == render(), "run: python -m docs.make_picture"


def test_the_picture_is_xml_in_light_and_dark() -> None:
    for dark in (False, True):
        assert ElementTree.fromstring(render(dark)).attrib["viewBox"] == f"0 0 {WIDTH} {HEIGHT}"


def test_boxes_stand_apart_hold_their_text_and_are_joined_by_every_arrow() -> None:
    assert overlapping(BOXES) == []
    assert too_wide(BOXES) == []
    assert [arrow.label for arrow in ARROWS if loose(arrow, BOXES)] == []
    assert all(box.x + box.width < WIDTH and box.y + box.height < HEIGHT for box in BOXES)


def test_these_checks_can_fail() -> None:
    box = BOXES[0]
    assert overlapping((box, replace(box, title="other", x=box.x + 1))) == [f"{box.title}, other"]
    assert too_wide((replace(box, width=20),)) == list(box.lines)
    assert loose(Arrow(((0, 0), (box.x, box.y)), ("lost",)), BOXES)
