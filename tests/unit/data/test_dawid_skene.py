"""Dawid and Skene's estimate against the paper's formulas written as loops; and votes in a training file."""

import csv
import io
import json
import math
from typing import Any

import numpy as np
import pytest

from service.recipes.objectives.classification import ClassificationSettings
from tests.given.templates import tokenizer_for
from workers.data.base_text import BaseText
from workers.data.check import DatasetInvalid, check_file
from workers.data.dawid_skene import Votes, combine
from workers.data.tokenized import TokenizedDataset
from workers.objectives.classification import COMBINED, Classification

RIGHT = (0.95, 0.9, 0.4, 0.4, 0.4)  # how often each annotator is right, of three labels


def noisy(num_rows: int, seed: int) -> tuple[Votes, np.ndarray[Any, Any]]:
    """Votes of five annotators, each of which skips a fifth of the rows; and what is true."""
    numbers = np.random.RandomState(seed)
    truth = numbers.randint(0, 3, num_rows)
    found = []
    for row, label in enumerate(truth.tolist()):
        for annotator, right in enumerate(RIGHT):
            given = label if numbers.rand() < right else (label + numbers.randint(1, 3)) % 3
            if numbers.rand() < 0.8 or annotator == row % 5:
                found.append((row, annotator, given))
    return Votes(*np.array(found, dtype=np.int64).T), truth


def by_loops(votes: Votes, num_rows: int, num_annotators: int, num_labels: int, rounds: int) -> list[list[float]]:
    """Equations 3.1, then 2.3, 2.4 and 2.5 in turns, as the paper prints them."""
    n = [[[0] * num_labels for _ in range(num_annotators)] for _ in range(num_rows)]
    for row, annotator, label in zip(votes.rows_V, votes.annotators_V, votes.labels_V, strict=True):
        n[row][annotator][label] += 1
    rows, labels, annotators = range(num_rows), range(num_labels), range(num_annotators)
    T = [[sum(n[i][k][j] for k in annotators) for j in labels] for i in rows]
    T = [[value / sum(row) for value in row] for row in T]
    for _ in range(rounds):
        p = [sum(T[i][j] for i in rows) / num_rows for j in labels]
        pi = [[[sum(T[i][j] * n[i][k][m] for i in rows) for m in labels] for j in labels] for k in annotators]
        pi = [[[value / sum(row) for value in row] for row in matrix] for matrix in pi]
        product = [
            [p[j] * math.prod(pi[k][j][m] ** n[i][k][m] for k in annotators for m in labels) for j in labels]
            for i in rows
        ]
        T = [[value / sum(row) for value in row] for row in product]
    return T


def test_it_is_the_papers_estimate() -> None:
    votes, _ = noisy(60, seed=1)
    found = combine(votes, 60, 5, 3)
    assert np.allclose(found.labels_NC, by_loops(votes, 60, 5, 3, rounds=200), atol=1e-5)
    assert np.allclose(found.labels_NC.sum(axis=1), 1) and np.allclose(found.errors_ACC.sum(axis=2), 1)
    assert np.array_equal(found.labels_NC, combine(votes, 60, 5, 3).labels_NC)


def test_good_annotators_outvote_bad_ones() -> None:
    votes, truth = noisy(400, seed=2)
    found = combine(votes, 400, 5, 3)
    counts = np.zeros((400, 3))
    np.add.at(counts, (votes.rows_V, votes.labels_V), 1)
    estimated = float((found.labels_NC.argmax(axis=1) == truth).mean())
    assert estimated > 0.9 and estimated > float((counts.argmax(axis=1) == truth).mean()) + 0.1
    right = [float((found.priors_C * np.diagonal(errors)).sum()) for errors in found.errors_ACC]
    assert right == pytest.approx(RIGHT, abs=0.1)


def test_a_certain_label_stays_and_helps() -> None:
    votes, truth = noisy(60, seed=1)
    known = np.where(np.arange(60) % 2 == 0, truth, -1)
    found = combine(votes, 60, 5, 3, known).labels_NC
    assert np.array_equal(found[::2], np.eye(3)[truth[::2]])
    others = (found[1::2].argmax(axis=1) == truth[1::2]).mean()
    assert others >= (combine(votes, 60, 5, 3).labels_NC[1::2].argmax(axis=1) == truth[1::2]).mean()


def checked(*rows: dict[str, Any]) -> TokenizedDataset:
    return check_file(
        [json.dumps(row).encode() for row in rows], BaseText(tokenizer_for("bundled")), context_tokens=64,
        row_limit_bytes=10_000, examples_minimum=1, param="training_file", file_id="file-1",
        objective=ClassificationSettings,
    )  # fmt: skip


def test_rows_with_votes_train_their_likeliest_label_by_its_probability() -> None:
    votes, truth = noisy(60, seed=1)
    given: list[dict[str, str]] = [{} for _ in range(60)]
    for row, annotator, label in zip(votes.rows_V, votes.annotators_V, votes.labels_V, strict=True):
        given[row][f"person {annotator}"] = "cab"[label]  # not the order of the alphabet
    rows: list[dict[str, Any]] = [{"text": f"text {row}", "votes": found} for row, found in enumerate(given)]
    rows[3] |= {"weight": 0.5}
    rows[4] = {"text": "text 4", "label": "cab"[truth[4]]}
    dataset = checked(*rows)
    known = np.full(60, -1)
    known[4] = truth[4]
    kept = votes.rows_V != 4
    expected = combine(
        Votes(votes.rows_V[kept], votes.annotators_V[kept], votes.labels_V[kept]), 60, 5, 3, known
    ).labels_NC[:, [1, 2, 0]]
    assert dataset.labels == ("a", "b", "c")
    assert dataset.row_labels is not None and dataset.row_weights is not None
    assert dataset.row_labels.tolist() == expected.argmax(axis=1).tolist()
    weights = expected.max(axis=1) * np.where(np.arange(60) == 3, 0.5, 1)
    assert np.allclose(dataset.row_weights, weights, atol=1e-5)
    table = list(csv.reader(io.StringIO(Classification(ClassificationSettings()).training_tables(dataset)[COMBINED])))
    assert table[0] == ["row", "label", "probability", "a", "b", "c"] and len(table) == 61
    assert (table[5][1], float(table[5][2])) == ("cab"[truth[4]], 1.0)
    assert [float(cell) for cell in table[8][3:]] == pytest.approx(expected[7].tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"text": "a", "votes": {}}, "votes", "Dictionary should have at least 1 item"),
        ({"text": "a", "votes": {"anna": 3}}, "votes.anna", "Input should be a valid string"),
        ({"text": "a", "votes": ["x"]}, "votes", "is not an object"),
        ({"text": "a", "labels": {"anna": "x"}}, "labels", "is no list of names; the labels of several annotators"),
        ({"text": "a", "labels": ["x"]}, "labels", 'has "labels", but the file\'s first row has "votes"'),
    ],
)
def test_what_is_wrong_with_votes_is_named_with_its_place(row: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(DatasetInvalid) as invalid:
        checked({"text": "a", "votes": {"anna": "x", "ben": "y"}}, row)
    found = [(one["line"], one["field"], one["reason"]) for one in invalid.value.details["problems"]]
    assert any(line == 2 and place == field and why.startswith(reason) for line, place, why in found), found


def test_a_file_without_votes_has_no_table() -> None:
    dataset = checked({"text": "a", "label": "x"}, {"text": "b", "label": "y"})
    assert dataset.row_label_probabilities is None and dataset.row_weights is None
    assert Classification(ClassificationSettings()).training_tables(dataset) == {}
