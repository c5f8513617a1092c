"""The labels of a file's rows: collected by name in one pass, then a class or a set of classes per row.

The classes of a training file are its labels in alphabetical order; a validation file has the training file's. Does not
depend on text or tokens; `workers.data.check` calls it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from msgspec import Struct

from service.recipes.dataset import Problem
from service.recipes.formats.labelled import (
    ANNOTATORS_LIMIT,
    LABELS_LIMIT,
    VOTED_LABELS_LIMIT,
    LabelledRow,
    VotedRow,
)
from workers.data.dawid_skene import Votes, combine
from workers.data.tokenized import TokenizedDataset

NAMES_SHOWN = 10


@dataclass(frozen=True)
class LabelSet:
    """The labels of a training file; `several`: any number of them is true of a row."""

    names: tuple[str, ...]
    several: bool

    @classmethod
    def of(cls, dataset: TokenizedDataset) -> "LabelSet | None":
        """None for rows without labels."""
        return cls(dataset.labels, dataset.row_label_sets is not None) if dataset.labels else None


class RowLabels(Struct, frozen=True, array_like=True):
    """What a row says of its labels, as `LabelledRow` has it; `votes` are annotator -> label, of a row with votes."""

    field: str
    has_several: bool
    names: list[str]
    votes: dict[str, str] | None


def row_labels(row: LabelledRow) -> RowLabels:
    """The labels of the row."""
    return RowLabels(row.field, row.has_several, row.names, row.votes if isinstance(row, VotedRow) else None)


class Labels:
    """Of one file. `given` are the training file's labels, for a validation file; without them all names are new."""

    def __init__(self, given: LabelSet | None = None) -> None:
        self._given = given is not None
        names = given.names if given else ()
        self._places = {name: place for place, name in enumerate(names)}  # by first appearance, where they are new
        self._rows: list[list[int]] = []
        self._several: bool | None = given.several if given else None
        self._field = "labels" if self._several else "label"  # of the first row
        self._too_many = False
        self._annotators: dict[str, int] = {}
        self._votes: list[tuple[int, int, int]] = []  # row, annotator, place of the label

    def add(self, row: RowLabels) -> None:
        """Takes a row whose labels are right (`find`), in the order of the dataset's rows."""
        if row.votes is not None:
            for annotator, name in row.votes.items():
                vote = len(self._rows), self._annotators.setdefault(annotator, len(self._annotators))
                self._votes.append((*vote, self._places[name]))
            self._rows.append([])
        else:
            self._rows.append([self._places[name] for name in row.names])

    def find(self, row: RowLabels, number: int) -> Problem | None:
        """What is wrong with the labels of the row of line `number`; names that are new are known from here on."""
        field = row.field
        if self._several is None:
            self._several, self._field = row.has_several, field
        if row.has_several != self._several:
            other = self._field
            where = "the training file" if self._given else "the file's first row"
            return Problem(number, field, f'has "{field}", but {where} has "{other}"; use one of them')
        if self._given and (unknown := next((name for name in row.names if name not in self._places), None)):
            known = ", ".join(list(self._places)[:NAMES_SHOWN])
            more = f" and {len(self._places) - NAMES_SHOWN} more" if len(self._places) > NAMES_SHOWN else ""
            return Problem(
                number, field, f"has the label '{unknown}', which the training file lacks; it has {known}{more}"
            )
        for name in row.names:
            if name not in self._places and len(self._places) == LABELS_LIMIT:
                if self._too_many:
                    return None
                self._too_many = True
                return Problem(number, field, f"brings more than {LABELS_LIMIT} different labels, which is the most")
            self._places.setdefault(name, len(self._places))
        return None

    def problems(self) -> Iterator[Problem]:
        """What only the whole file shows."""
        if self._several is None or self._given:
            return
        fewest = 1 if self._several else 2
        if len(self._places) < fewest:
            found = f"only the label '{next(iter(self._places))}'" if self._places else "no label at all"
            yield Problem(1, self._field, f"and every later row has {found}: no other label is there to learn")
        if len(self._annotators) > ANNOTATORS_LIMIT:
            yield Problem(1, "votes", f"and later rows have more than {ANNOTATORS_LIMIT} annotators, which is the most")
        if self._votes and len(self._places) > VOTED_LABELS_LIMIT:
            reason = (
                f"and later rows have more than {VOTED_LABELS_LIMIT} labels, which is the most in a file with votes"
            )
            yield Problem(1, "votes", reason)

    def column(self, dataset: TokenizedDataset) -> TokenizedDataset:
        """The dataset with its labels' names and what each row has; unchanged where no row has any."""
        if not self._rows:
            return dataset
        names = tuple(self._places if self._given else sorted(self._places))
        classes = {self._places[name]: place for place, name in enumerate(names)}
        if self._votes:
            return self._combined(replace(dataset, labels=names), classes)
        if not self._several:
            labels = np.array([classes[place] for (place,) in self._rows], dtype=np.int64)
            return replace(dataset, labels=names, row_labels=labels)
        sets = np.zeros((len(self._rows), len(names)), dtype=np.uint8)
        for row, places in enumerate(self._rows):
            sets[row, [classes[place] for place in places]] = 1
        return replace(dataset, labels=names, row_label_sets=sets)

    def _combined(self, dataset: TokenizedDataset, classes: dict[int, int]) -> TokenizedDataset:
        """The likeliest label of each row, and how likely it is as its weight."""
        rows, annotators, places = np.array(self._votes, dtype=np.int64).T
        labels = np.array([classes[int(place)] for place in places], dtype=np.int64)
        known = np.array([classes[found[0]] if found else -1 for found in self._rows], dtype=np.int64)
        votes = Votes(rows, annotators, labels)
        found = combine(votes, len(self._rows), len(self._annotators), len(dataset.labels), known).labels_NC
        weights = 1.0 if dataset.row_weights is None else dataset.row_weights
        return replace(
            dataset,
            row_labels=found.argmax(axis=1),
            row_weights=(weights * found.max(axis=1)).astype(np.float32),
            row_label_probabilities=found.astype(np.float32),
        )
