"""What is probably wrong in a file, though it is valid: each with how often it is so, and some lines to look at.

Sees every row once, in constant time and memory per row: hashes of 64 bits, and a MinHash signature (Broder 1997) of
its words for the first NEAR_ROWS rows. Never keeps or repeats the text of a row; what is seen of one is in
`workers.data.glance`.
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from service.domain.check import Advice
from workers.data.glance import PERMUTATIONS
from workers.data.lines import Glance
from workers.data.personal import KINDS

LINES_SHOWN = 10
NEAR_ROWS = 100_000  # of a file, from its beginning, that are compared for likeness
LIKE = 0.7  # the share of equal values in two signatures, which estimates the Jaccard similarity of the rows' words
BAND = 4  # of PERMUTATIONS: rows with a likeness of 0.8 share one of 16 bands with a probability of 0.9998
LABELS_MOST, ROWS_PER_LABEL = 50, 5  # what looks like a classification
FEWEST_ROWS, IMBALANCE = 20, 10  # the most frequent label is so many times as frequent as the rarest


class Advisor:
    """Looks at the rows of one file in their order, then says what there is to say."""

    def __init__(self) -> None:
        self._rows, self._questions, self._answers = array("q"), array("q"), array("q")
        self._signatures = array("I")
        self._near_lines = array("q")  # the index of each row that has a signature
        self._empty: list[int] = []
        self._num_empty = 0
        self._personal: dict[str, list[int]] = {}
        self._num_personal: Counter[str] = Counter()
        self._labels: Counter[int] | None = Counter()  # by the answer's hash; None: not a classification

    @property
    def signs(self) -> bool:
        """Whether the next row's signature is compared; once it is not, no later one is."""
        return len(self._rows) < NEAR_ROWS

    def see(self, seen: Glance) -> None:
        """The next row of the file, with its signature as long as `signs`."""
        if self.signs and seen.signature is not None:
            self._signatures.frombytes(seen.signature)
            self._near_lines.append(len(self._rows) + 1)
        self._rows.append(seen.row)
        self._questions.append(seen.question)
        self._answers.append(seen.answer)
        line = len(self._rows)
        if seen.empty:
            self._num_empty += 1
            self._empty += [line] * (len(self._empty) < LINES_SHOWN)
        for kind in seen.kinds:
            self._num_personal[kind] += 1
            lines = self._personal.setdefault(kind, [])
            lines += [line] * (len(lines) < LINES_SHOWN)
        if self._labels is not None:
            self._labels[seen.answer] += 1
            if not seen.label or len(self._labels) > LABELS_MOST:
                self._labels = None

    def advice(self) -> list[Advice]:
        """Everything that was found in this file."""
        sketch = self.sketch()
        found = [*self._duplicates(), *self._near(sketch), *self._contradictions(), *self._imbalance()]
        if self._num_empty:
            message = f"{_rows(self._num_empty)} an answer without a word: the model learns to say nothing"
            found.append(Advice("empty_answers", message, None, self._num_empty, self._empty))
        for kind, name in KINDS.items():
            if count := self._num_personal[kind]:
                message = f"{_rows(count)} what looks like {name}; a model may repeat what it has learned"
                code = "secret_key" if kind == "key" else f"personal_{kind}"
                found.append(Advice(code, message, None, count, self._personal[kind]))
        return found

    def sketch(self) -> "Sketch":
        """What another file's rows are compared with."""
        return Sketch(
            np.array(self._rows, dtype=np.int64),
            np.array(self._near_lines, dtype=np.int64),
            np.array(self._signatures, dtype=np.uint32).reshape(-1, PERMUTATIONS),
        )

    def _duplicates(self) -> list[Advice]:
        lines = _repeats(np.array(self._rows, dtype=np.int64)) + 1
        if not len(lines):
            return []
        message = f"{_rows(len(lines))} exactly what an earlier row has; each counts again in the training"
        return [_advice("duplicates", message, lines)]

    def _near(self, sketch: "Sketch") -> list[Advice]:
        mine, earlier = sketch.like(sketch, within=True)
        rows, answers = np.array(self._rows, dtype=np.int64), np.array(self._answers, dtype=np.int64)
        near = rows[mine - 1] != rows[earlier - 1]
        mine, earlier = mine[near], earlier[near]
        relabelled = (answers[mine - 1] != answers[earlier - 1]) & (self._labels is not None)
        bound = f" (of the first {NEAR_ROWS:,} rows)" if len(rows) > NEAR_ROWS else ""
        found = []
        if len(lines := mine[~relabelled]):
            message = f"{_rows(len(lines))} nearly the same words as an earlier row{bound}"
            found.append(_advice("near_duplicates", message, lines))
        if len(lines := mine[relabelled]):
            message = f"{_rows(len(lines))} nearly the same words as an earlier row, but another label{bound}"
            found.append(_advice("contradictory_labels", message, lines))
        return found

    def _contradictions(self) -> list[Advice]:
        questions = np.array(self._questions, dtype=np.int64)
        answers = np.array(self._answers, dtype=np.int64)
        order = np.lexsort((answers, questions))
        same = questions[order][1:] == questions[order][:-1]
        differ = same & (answers[order][1:] != answers[order][:-1])
        contradicted = np.unique(questions[order][1:][differ])
        lines = np.flatnonzero(np.isin(questions, contradicted)) + 1
        if not len(lines):
            return []
        message = f"{_rows(len(lines))} a prompt that other rows answer otherwise; at best the model learns a mixture"
        return [_advice("contradictory_answers", message, lines)]

    def _imbalance(self) -> list[Advice]:
        labels, num_rows = self._labels, len(self._rows)
        if labels is None or num_rows < FEWEST_ROWS or not 2 <= len(labels) <= num_rows / ROWS_PER_LABEL:
            return []
        ((_, most), *_, (rarest, least)) = labels.most_common()
        if most < IMBALANCE * least:
            return []
        lines = np.flatnonzero(np.array(self._answers, dtype=np.int64) == rarest) + 1
        message = (
            f"The answers look like {len(labels)} labels, of which the most frequent has {most:,} rows and the rarest "
            f"{least:,}; the model will prefer the frequent ones. The lines are those of the rarest"
        )
        return [_advice("label_imbalance", message, lines)]


class Sketch:
    """The rows of a file as numbers: N hashes of rows, and for M of them (`lines`, from 1) a signature."""

    def __init__(self, rows: NDArray[np.int64], lines: NDArray[np.int64], signatures: NDArray[np.uint32]) -> None:
        self.rows, self.lines, self.signatures = rows, lines, signatures

    def save(self, path: Path) -> None:
        save_file({"rows": self.rows, "lines": self.lines, "signatures": self.signatures}, path)

    @classmethod
    def load(cls, path: Path) -> "Sketch":
        arrays = load_file(path)
        return cls(arrays["rows"], arrays["lines"], arrays["signatures"])

    def like(self, other: "Sketch", *, within: bool = False) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The lines of this file that are like one of `other`, and for each the first such line that was found.

        `within`: `other` is this file, and only earlier lines count. Compares each row with one row per band: the
        first of `other` that shares it.
        """
        match = np.full(len(self.lines), -1, dtype=np.int64)
        for start in range(0, PERMUTATIONS, BAND):
            columns = slice(start, start + BAND)
            mine, theirs = _keys(self.signatures[:, columns]), _keys(other.signatures[:, columns])
            known, first = np.unique(theirs, return_index=True)
            if not len(known):
                continue
            place = np.minimum(np.searchsorted(known, mine), len(known) - 1)
            candidate = first[place]
            usable = (known[place] == mine) & (match < 0)
            if within:
                usable &= candidate < np.arange(len(mine))
            rows = np.flatnonzero(usable)
            likeness = (self.signatures[rows] == other.signatures[candidate[rows]]).mean(axis=1)
            alike = rows[likeness >= LIKE]
            match[alike] = candidate[alike]
        found = np.flatnonzero(match >= 0)
        return self.lines[found], other.lines[match[found]]


def leaks(training: Sketch, validation: Sketch) -> list[Advice]:
    """Rows of the validation file that are in the training file too, exactly or nearly."""
    same = np.isin(validation.rows, training.rows)
    lines, found = np.flatnonzero(same) + 1, []
    if len(lines):
        message = f"{_rows(len(lines))} exactly what a row of the training file has: the validation loss will flatter"
        found.append(_advice("leaked_rows", message, lines, "validation_file"))
    near, _ = validation.like(training)
    near = near[~same[near - 1]]
    if len(near):
        message = f"{_rows(len(near))} nearly the same words as a row of the training file"
        found.append(_advice("nearly_leaked_rows", message, near, "validation_file"))
    return found


def _repeats(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of values that are earlier in the array too."""
    repeated = np.ones(len(values), dtype=bool)
    repeated[np.unique(values, return_index=True)[1]] = False
    return np.flatnonzero(repeated)


def _keys(band: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """One number per row for the values of a band (FNV-1a, 64 bits)."""
    key = np.full(len(band), 0xCBF29CE484222325, dtype=np.uint64)
    for column in range(band.shape[1]):
        key = (key ^ band[:, column].astype(np.uint64)) * np.uint64(0x100000001B3)
    return key


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count:,} rows have"


def _advice(code: str, message: str, lines: Sequence[int] | NDArray[np.int64], param: str | None = None) -> Advice:
    return Advice(code, message, param, len(lines), [int(line) for line in lines[:LINES_SHOWN]])
