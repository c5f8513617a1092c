"""Writes docs/compatibility.md by trying every tuning on every family of bases: `python -m docs.make_compatibility`.

The bases are tiny and random, of `tests.given.families`. A test holds the page current and proves every yes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.given.compatibility import encoder_refusal, packed_refusal, refusal
from tests.given.encoder_decoders import ENCODER_DECODERS
from tests.given.encoders import ENCODERS
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
ENCODERS_HEAD = """
## Encoders

On encoders, for the method `classification`: `tests/unit/tunings/test_compatibility_encoders.py` shows the same of what
the head returns, in the trainer and as an engine attaches the adapter. A number: a job is refused, or the catalogue's
entry, for the reason below.

"""
BOTH_HEAD = """
## Encoder-decoders

On encoder-decoders, for the method `supervised`: `tests/unit/tunings/test_compatibility.py` shows the same as of the
first table, with the logits of the decoder. `partial`'s `last:n` are the decoder's blocks; `prompt` stands before what
the encoder reads. Decoders that count positions from the beginning of a batch (BART, Marian) are refused when they are
loaded, since rows of unlike length could not be decoded together.

"""


PACKED_HEAD = """
## Bases in 4 bits

With `quantization = "nf4"` in the catalogue: `tests/unit/model/test_nf4.py` shows that five steps lower the loss, that
neighbours and jobs that break off end in the same bytes, and that the embedded engine serves it packed too. A number:
the base, or a job, is refused for the reason below. Other architectures are tried by `luthierd bases check`.

"""


def main() -> None:
    """Tries every pair and rewrites the page."""
    causal = {(name, kind): refusal(name, kind) for name in FAMILIES for kind in KINDS}
    encoders = {(name, kind): encoder_refusal(name, kind) for name in ENCODERS for kind in KINDS}
    both = {(name, kind): refusal(name, kind) for name in ENCODER_DECODERS for kind in KINDS}
    PAGE.write_text(render(causal, encoders, both) + packed_part(), encoding="utf-8")


def packed_part() -> str:
    """The part on bases in 4 bits."""
    families = (*FAMILIES, *ENCODERS)
    return PACKED_HEAD + _table(
        families, {(name, kind): packed_refusal(name, kind) for name in families for kind in KINDS}
    )


def render(
    causal: Mapping[tuple[str, str], str],
    encoders: Mapping[tuple[str, str], str],
    both: Mapping[tuple[str, str], str],
) -> str:
    """The page; a refusal by family and kind is empty where they go together."""
    parts = (
        (HEAD, FAMILIES, causal),
        (ENCODERS_HEAD, ENCODERS, encoders),
        (BOTH_HEAD, ENCODER_DECODERS, both),
    )
    return "".join(head + _table(families, refusals) for head, families, refusals in parts)


def _table(families: Sequence[str], refusals: Mapping[tuple[str, str], str]) -> str:
    reasons = sorted({reason for reason in refusals.values() if reason})
    head = "| tuning | " + " | ".join(families) + " |\n" + "|---" * (1 + len(families)) + "|\n"
    rows = ""
    for kind in KINDS:
        cells = (refusals[name, kind] for name in families)
        shown = " | ".join(str(reasons.index(reason) + 1) if reason else "yes" for reason in cells)
        rows += f"| `{kind}` | {shown} |\n"
    listed = "".join(f"{number}. {reason}\n" for number, reason in enumerate(reasons, start=1))
    return f"{head}{rows}" + (f"\n{listed}" if listed else "")


if __name__ == "__main__":
    main()
