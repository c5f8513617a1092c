"""Rows of every format, and a check of a file in one pass with all that it finds, to compare with others."""

import json
import random
from collections.abc import Callable
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from service.recipes.base import Base, Serving
from service.recipes.json_lines import split_lines
from service.recipes.objective import find_objective
from workers.data.advice import Advisor
from workers.data.base_text import BaseText
from workers.data.check import HEAD_LINES, DatasetInvalid, FileCheck, check_file
from workers.data.lines import Glance
from workers.data.tokenized import TokenizedDataset
from workers.jobs.part_reader import PartOrder

TINY = Path(__file__).parents[2] / "workers" / "toy_base" / "luthier-tiny"
BASE = Base(id="tiny", source=str(TINY), context_tokens=64, serving=Serving(tunings=frozenset({"lora"})))
LIMIT = 600
ASKED = [{"role": "user", "content": "Where is order {}?"}]
ANSWER = {"role": "assistant", "content": "In Köln, {}."}
PAIR = {"input": {"messages": ASKED}, "preferred_output": [ANSWER]}
ROWS: dict[str, list[dict[str, Any]]] = {
    "supervised": [
        {"messages": [*ASKED, ANSWER]},
        {"messages": [*ASKED, ANSWER, *ASKED, ANSWER | {"weight": 0.5}]},
        {"messages": [*ASKED, ANSWER], "weight": 0.25},
        {"messages": [*ASKED, ANSWER], "weight": 0},
    ],
    "prompts": [{"prompt": "Order {}:", "completion": " sent."}, {"prompt": "{}", "completion": "!", "weight": 0.5}],
    "text": [{"text": "A document about {}. " * 20}, {"text": "Short, {}", "weight": 0.5}],
    "dpo": [PAIR | {"non_preferred_output": [ANSWER | {"content": "No idea, {}"}]}, PAIR | {
        "non_preferred_output": [ANSWER | {"content": "{}"}], "weight": 0.5}],
    "kto": [{"messages": [*ASKED, ANSWER], "label": True}, {"prompt": "{}?", "completion": "!", "label": False}],
    "embedding": [{"anchor": "Where is {}?", "positive": "{} is in Köln."}],
    "classification": [{"text": "{} is late", "label": "late"}, {"text": "{} is here", "label": "here", "weight": 0.5}],
    "votes": [{"text": "{} is late", "votes": {"a": "late", "b": "here"}}, {"prompt": "{} is here", "label": "here"}],
    "labels": [{"text": "{} is late", "labels": ["late", "red"]}, {"messages": ASKED, "labels": []}],
}  # fmt: skip
OBJECTIVES = {"prompts": "supervised", "votes": "classification", "labels": "classification"}
Outcome = tuple[object, ...]


class Seen:
    """What an observer is shown."""

    def __init__(self) -> None:
        self.rows: list[tuple[Glance, int]] = []
        self.advisor = Advisor()

    @property
    def signs(self) -> bool:
        return self.advisor.signs

    def see(self, seen: Glance, num_sequences: int) -> None:
        self.rows.append(
            (msgspec.structs.replace(seen, signature=seen.signature if self.signs else None), num_sequences)
        )
        self.advisor.see(seen)


def outcome(run: Callable[[Seen], TokenizedDataset], folder: Path) -> Outcome:
    """Everything that is found, to be compared."""
    seen = Seen()
    found: Outcome
    try:
        dataset = run(seen)
    except DatasetInvalid as invalid:
        found = (invalid.error.code, invalid.error.message, invalid.error.param, invalid.details)
    else:
        dataset.save(folder / "dataset")
        found = ((folder / "dataset").read_bytes(), dataset.labels, dataset.num_examples)
    return (*found, seen.rows, seen.advisor.advice())


def about(objective: str, folder: Path, seen: Seen) -> dict[str, Any]:
    return {
        "context_tokens": BASE.context_tokens,
        "examples_minimum": 1,
        "param": "training_file",
        "file_id": "file-1",
        "objective": find_objective(objective),
        "observer": seen,
        "folder": folder,
    }


def in_one_pass(path: Path, objective: str, text: BaseText, **of_tuning: Any) -> Outcome:
    def run(seen: Seen) -> TokenizedDataset:
        lines = split_lines([path.read_bytes()], LIMIT)
        day = date(2026, 1, 2)
        known = about(objective, path.parent, seen) | of_tuning
        return check_file(lines, text, row_limit_bytes=LIMIT, day=day, **known)

    return outcome(run, path.parent)


def order_for(path: Path, objective: str, **more: Any) -> PartOrder:
    return PartOrder(
        path=str(path), file_bytes=path.stat().st_size, base=BASE, objective=objective, row_limit_bytes=LIMIT,
        day=date(2026, 1, 2), glances=True, **more,
    )  # fmt: skip


def begun(path: Path, objective: str, seen: Seen) -> FileCheck:
    head = list(islice(split_lines([path.read_bytes()], LIMIT), HEAD_LINES))
    return FileCheck(head, **about(objective, path.parent, seen))


def good_rows(kind: str, count: int, numbers: random.Random) -> list[bytes]:
    return [
        json.dumps(numbers.choice(ROWS[kind])).replace("{}", str(numbers.randint(0, 60))).encode() for _ in range(count)
    ]
