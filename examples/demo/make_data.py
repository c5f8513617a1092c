"""Writes the demo's three data sets from the phrase banks, the same bytes every time.

`python examples/demo/make_data.py`. Stands outside the service: standard library only. A wording together with its
thing occurs in one of the three files only, and of the five held-out rows of an intent one has a wording that training
never shows.
"""

import json
import random
from pathlib import Path

from phrases import ASIDES, INTENTS, OPENINGS, Intent

SEED = 20260101
TRAINING_ROWS, VALIDATION_ROWS, HELD_OUT_ROWS = 45, 5, 5  # of each intent
LOWER_CASE_SHARE = 0.15

Row = tuple[str, str]


def main() -> None:
    """Write `training.jsonl`, `validation.jsonl` and `heldout.jsonl` beside this file."""
    rng = random.Random(SEED)
    training: list[Row] = []
    validation: list[Row] = []
    held_out: list[Row] = []
    for intent in INTENTS:
        seen = [wording.format(thing=thing) for wording in intent.wordings for thing in intent.things]
        rng.shuffle(seen)
        new = _sample_unseen(intent, rng)
        held_out += _rows([seen.pop() for _ in range(HELD_OUT_ROWS - 1)] + new[:1], intent, rng)
        validation += _rows([seen.pop() for _ in range(VALIDATION_ROWS - 1)] + new[1:], intent, rng)
        training += _rows(seen[:TRAINING_ROWS], intent, rng)
    for name, rows in (("training", training), ("validation", validation), ("heldout", held_out)):
        rng.shuffle(rows)
        _write(Path(__file__).with_name(f"{name}.jsonl"), rows)


def _sample_unseen(intent: Intent, rng: random.Random) -> list[str]:
    """Two messages of wordings that training never shows."""
    return rng.sample([wording.format(thing=thing) for wording in intent.unseen for thing in intent.things], 2)


def _rows(messages: list[str], intent: Intent, rng: random.Random) -> list[Row]:
    return [(_dress(message, rng), intent.name) for message in messages]


def _dress(message: str, rng: random.Random) -> str:
    """Add what says nothing about the intent: a greeting, an aside, a writer without a shift key."""
    opening = rng.choice(OPENINGS)
    text = opening + (_begun_lower(message) if opening else message[0].upper() + message[1:]) + rng.choice(ASIDES)
    return text.lower().rstrip("?.!") if rng.random() < LOWER_CASE_SHARE else text


def _begun_lower(message: str) -> str:
    return message if message.startswith("I ") else message[0].lower() + message[1:]


def _write(path: Path, rows: list[Row]) -> None:
    lines = [
        json.dumps({"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]})
        for text, answer in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
