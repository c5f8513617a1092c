"""Labels of a file: by name, checked line by line, in order of the alphabet; a validation file has no others."""

from typing import Any

import numpy as np

from service.recipes.objectives.classification import ClassificationSettings
from tests.given.checked_rows import TEXT, checked_rows, problems_of
from workers.data.labels import LabelSet
from workers.data.tokenized import TokenizedDataset


def checked(*rows: dict[str, Any], labels: LabelSet | None = None) -> TokenizedDataset:
    return checked_rows(*rows, objective=ClassificationSettings, context_tokens=64, labels=labels)


def refused(*rows: dict[str, Any], labels: LabelSet | None = None) -> list[tuple[int, str, str]]:
    return problems_of(lambda: checked(*rows, labels=labels))


def test_classes_are_the_labels_in_alphabetical_order_whatever_the_rows_are_called() -> None:
    conversation = [{"role": "user", "content": "pear"}]
    dataset = checked(
        {"text": "plum", "label": "sweet"},
        {"prompt": "lime", "label": "bitter"},
        {"messages": conversation, "label": "ö"},
    )
    assert dataset.labels == ("bitter", "sweet", "ö")
    assert dataset.row_labels is not None and dataset.row_labels.tolist() == [1, 0, 2]
    assert dataset.num_trained_tokens == 0 and dataset.row_weights is None
    ids = dataset.row(2)[0].tolist()
    assert TEXT.tokenizer.decode(ids).endswith("<|assistant|>")


def test_several_labels_are_a_set_and_none_is_one_too() -> None:
    dataset = checked({"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": []}, {"text": "c", "labels": ["y"]})
    assert dataset.row_label_sets is not None
    assert dataset.row_label_sets.tolist() == [[1, 1], [0, 0], [0, 1]]


def test_a_rows_weight_is_kept_and_a_row_without_any_is_left_out() -> None:
    rows = [
        {"text": "a", "label": "x", "weight": 0.5},
        {"text": "b", "label": "y"},
        {"text": "c", "label": "x", "weight": 0},
    ]
    dataset = checked(*rows)
    assert dataset.row_weights is not None and np.allclose(dataset.row_weights, [0.5, 1])
    assert dataset.row_labels is not None and dataset.row_labels.tolist() == [0, 1]


def test_every_wrong_label_is_a_problem_of_its_line() -> None:
    found = refused(
        {"text": "a", "label": "x"},
        {"text": "b"},
        {"text": "c", "label": 3},
        {"text": "d", "labels": ["x"]},
        {"text": "", "label": "x"},
        {"messages": [{"role": "user", "content": "e"}]},
    )
    assert [(line, field) for line, field, _ in found] == [
        (2, "label"), (3, "label"), (4, "labels"), (5, "text"), (6, "label")
    ]  # fmt: skip
    assert found[0][2] == found[4][2] == 'has no "label"'
    assert found[2][2] == 'has "labels", but the file\'s first row has "label"; use one of them'


def test_a_file_of_one_label_teaches_nothing() -> None:
    ((line, field, reason),) = refused({"text": "a", "label": "x"}, {"text": "b", "label": "x"})
    assert (line, field) == (1, "label") and "only the label 'x'" in reason


def test_a_validation_file_has_the_labels_of_the_training_file_and_no_others() -> None:
    training = LabelSet(("x", "y", "z"), several=False)
    dataset = checked({"text": "a", "label": "z"}, labels=training)
    assert dataset.labels == training.names and dataset.row_labels is not None
    assert dataset.row_labels.tolist() == [2]
    ((line, field, reason),) = refused({"text": "a", "label": "z"}, {"text": "b", "label": "w"}, labels=training)
    assert (line, field) == (2, "label")
    assert reason == "has the label 'w', which the training file lacks; it has x, y, z"
    ((_, _, reason),) = refused({"text": "a", "labels": ["z"]}, labels=training)
    assert reason == 'has "labels", but the training file has "label"; use one of them'
