"""Writes the demo's orders and the JSON that each should become, the same bytes every time.

`python examples/demo/make_orders.py`. Outside the service: standard library only. A held-out row shares no sentence, no
thing, no city and no name with any training row.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from order_phrases import CITIES, COUNTS, KINDS, NAMES, SENTENCES, THINGS, Bank

SEED = 20260101
TRAINING_ROWS, HELD_OUT_ROWS = 128, 50
IN_DIGITS = 0.4  # of the numbers
FOLDER = Path(__file__).parent / "orders"

Row = tuple[str, str]
T = TypeVar("T")


def main() -> None:
    """Writes `training.jsonl` and `heldout.jsonl`."""
    rng = random.Random(SEED)
    FOLDER.mkdir(exist_ok=True)
    _write(FOLDER / "training.jsonl", _rows(TRAINING_ROWS, lambda bank: bank.training, rng))
    _write(FOLDER / "heldout.jsonl", _rows(HELD_OUT_ROWS, lambda bank: bank.held_out, rng))


def _rows(count: int, half: Callable[[Bank], tuple[str, ...]], rng: random.Random) -> list[Row]:
    """Every phrase is used about equally often, in an order of its own."""
    banks = [_shuffled(half(bank), count, rng) for bank in (SENTENCES, THINGS, CITIES, NAMES)]
    numbers = _shuffled(tuple(range(1, len(COUNTS) + 1)), count, rng)
    return [_row(*phrases, number, rng) for *phrases, number in zip(*banks, numbers, strict=True)]


def _shuffled(phrases: tuple[T, ...], count: int, rng: random.Random) -> list[T]:
    return [phrase for _ in range(-(-count // len(phrases))) for phrase in rng.sample(phrases, len(phrases))][:count]


def _row(sentence: str, thing: str, city: str, name: str, number: int, rng: random.Random) -> Row:
    item = f"{rng.choice(KINDS)} {thing}"
    count = str(number) if rng.random() < IN_DIGITS else COUNTS[number - 1]
    text = sentence.format(name=name, city=city, count=count, items=item if number == 1 else f"{item}s")
    order = {"customer": name, "item": item, "quantity": number, "city": city}
    return text[0].upper() + text[1:], json.dumps(order, ensure_ascii=False)


def _write(path: Path, rows: list[Row]) -> None:
    lines = [
        json.dumps(
            {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]},
            ensure_ascii=False,
        )
        for text, answer in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
