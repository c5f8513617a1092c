"""Writes docs/compatibility.md by trying every tuning on every family of bases: `python -m docs.make_compatibility`.

The bases are tiny and random, of `tests.given.families`. A test holds the page current and proves every yes.
"""

from collections.abc import Mapping
from pathlib import Path

from tests.given.compatibility import refusal
from tests.given.families import FAMILIES
from tests.given.tunings import KINDS

PAGE = Path(__file__).resolve().parent / "compatibility.md"
HEAD = """\
# Which tuning goes with which base

**yes**: `tests/unit/tunings/test_compatibility.py` shows on a tiny random base of that family that the tuning begins
where the base is (`prompt` and `prefix` excepted, by design), that training moves its own parameters only, that what is
saved gives the same logits in a new process, that decoding with a cache agrees with a full forward pass, that its rows
decode beside those of the base and of another tuning as they do alone, that a job that breaks off ends in the same
bytes, and that nothing of it stays in the base. A number: a job is refused with that sentence of the list below.

In `mixtral` all experts are one tensor: tunings of linear layers move the attention only, `full` and `partial` the
experts as well. A family stands for all bases of its architecture; one that is not in the table is tried by
`luthierd bases check`.
`dora`, `rslora` and `pissa` are settings of `lora`. [methods.md](methods.md#tunings) says what each tuning is. This
page is written by `python -m docs.make_compatibility`.

"""


def main() -> None:
    """Tries every pair and rewrites the page."""
    PAGE.write_text(
        render({(name, kind): refusal(name, kind) for name in FAMILIES for kind in KINDS}), encoding="utf-8"
    )


def render(refusals: Mapping[tuple[str, str], str]) -> str:
    """The page; a refusal by family and kind is empty where they go together."""
    reasons = sorted({reason for reason in refusals.values() if reason})
    head = "| tuning | " + " | ".join(FAMILIES) + " |\n" + "|---" * (1 + len(FAMILIES)) + "|\n"
    rows = ""
    for kind in KINDS:
        cells = (refusals[name, kind] for name in FAMILIES)
        shown = " | ".join(str(reasons.index(reason) + 1) if reason else "yes" for reason in cells)
        rows += f"| `{kind}` | {shown} |\n"
    listed = "".join(f"{number}. {reason}\n" for number, reason in enumerate(reasons, start=1))
    return f"{HEAD}{head}{rows}" + (f"\n{listed}" if listed else "")


if __name__ == "__main__":
    main()
