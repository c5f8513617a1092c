"""What the demo can teach: one lesson for a real base, one for the bundled toy. Data and numbers, and no code."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
SCHEMA = (
    "Turn the order into JSON with exactly these keys: "
    '{"customer": first name, "item": one item in the singular, "quantity": a number, "city": city}. '
    "Reply with the JSON only.\n\n"
)


@dataclass(frozen=True)
class Lesson:
    """Rows, how they are trained, and what must come of it. `told` precedes what the base is asked."""

    base: str
    about: str
    folder: Path
    files: tuple[str, ...]  # of `folder`: training, then validation if there is one
    suffix: str
    n_epochs: int
    batch_size: int
    rate: float  # multiplies the base's own learning rate
    max_tokens: int  # of an answer; the longest right one needs fewer
    tuned_at_least: float
    base_at_most: float
    rows_shown: int
    told: str = ""


ORDERS = Lesson(
    base="smollm2-135m",
    about=(
        "orders in free text become JSON. No thing, city, name or sentence of the held-out orders is among those that "
        "train.\nThe base is told the keys in its prompt; the tuned model is given the order alone."
    ),
    folder=FOLDER / "orders",
    files=("training.jsonl",),
    suffix="orders",
    n_epochs=1,
    batch_size=8,
    rate=0.77,
    max_tokens=40,
    tuned_at_least=0.85,
    base_at_most=0.1,
    told=SCHEMA,
    rows_shown=6,
)
INTENTS = Lesson(
    base="luthier-tiny",
    about="messages to a guitar maker's workshop, sorted by what they want.",
    folder=FOLDER,
    files=("training.jsonl", "validation.jsonl"),
    suffix="workshop",
    n_epochs=6,
    batch_size=8,
    rate=1.0,
    max_tokens=16,
    tuned_at_least=0.8,
    base_at_most=0.2,
    rows_shown=8,
)
LESSONS = {lesson.base: lesson for lesson in (ORDERS, INTENTS)}
