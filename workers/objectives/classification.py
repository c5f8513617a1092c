"""Classification: cross entropy of a text's label, or of each of its labels, by a head on one vector of the text.

Shapes: B rows, C labels, N rows of a file.
"""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from service.domain.model import HeadConfig
from service.recipes.objectives.classification import ClassificationSettings
from service.recipes.tasks import BaseKind
from workers.data.batches import Batch
from workers.data.tokenized import TokenizedDataset
from workers.objectives.base import OBJECTIVES, Forward, HeadObjective, Loss, WholeFile

CONFUSION = "confusion_matrix.csv"
COMBINED = "combined_labels.csv"  # of rows with votes
Counts = NDArray[np.int64]


@OBJECTIVES.of(ClassificationSettings)
class Classification(HeadObjective):
    """The sum over rows of the weighted cross entropy. At step 0 it is log C per row, or log 2 with several labels."""

    def __init__(self, settings: ClassificationSettings) -> None:
        self._settings = settings
        self._weights_C = torch.empty(0)

    def prepare(self, train: TokenizedDataset, kind: BaseKind) -> None:
        several = train.row_label_sets is not None
        self.config = HeadConfig(
            problem_type="multi_label_classification" if several else "single_label_classification",
            labels=list(train.labels),
            pooling=self._settings.pooling or ("last" if kind == "causal" else "mean"),
        )
        self._weights_C = torch.tensor(self._weights(train), dtype=torch.float32)

    def attach(self, hidden_size: int, device: torch.device) -> None:
        super().attach(hidden_size, device)
        self._weights_C = self._weights_C.to(device)

    def count(self, batch: Batch) -> int:
        return len(batch.input_ids_BT)

    def loss(self, forward: Forward, batch: Batch) -> Loss:
        logits_BC = self.logits(forward, batch)
        if batch.row_label_sets_BC is not None:
            return self._several(logits_BC, batch.row_label_sets_BC, batch.row_weights_B)
        assert batch.row_labels_B is not None, "the file has labels"
        # L = -w_y log p(y | x),  p = softmax(W h + b)
        losses_B = cross_entropy(logits_BC, batch.row_labels_B, weight=self._weights_C, reduction="none")
        total = _weighted(losses_B, batch.row_weights_B).sum()
        predicted_B = logits_BC.detach().argmax(dim=-1)
        return Loss(total, {"accuracy": (predicted_B == batch.row_labels_B).sum()}, predicted_B)

    def evaluate(self, dataset: TokenizedDataset, outputs: Sequence[Tensor]) -> WholeFile:
        if dataset.row_label_sets is not None:
            return self._evaluate_several(dataset.row_label_sets.astype(bool), outputs)
        assert dataset.row_labels is not None
        size = len(dataset.labels)
        matrix_CC: Counts = np.zeros((size, size), dtype=np.int64)  # [the label, the prediction]
        np.add.at(matrix_CC, (dataset.row_labels, np.array([int(output) for output in outputs])), 1)
        right = np.diagonal(matrix_CC)
        table = [["label \\ predicted", *dataset.labels]]
        table += [[name, *map(str, row)] for name, row in zip(dataset.labels, matrix_CC, strict=True)]
        return WholeFile(
            {"macro_f1": macro_f1(right, matrix_CC.sum(axis=0), matrix_CC.sum(axis=1))}, {CONFUSION: _csv(table)}
        )

    def training_tables(self, train: TokenizedDataset) -> Mapping[str, str]:
        if train.row_label_probabilities is None:
            return {}
        assert train.row_labels is not None
        table = [["row", "label", "probability", *train.labels]]
        rows = zip(train.row_labels.tolist(), train.row_label_probabilities.tolist(), strict=True)
        for number, (label, shares) in enumerate(rows, start=1):
            table.append([str(number), train.labels[label], *(f"{share:.6f}" for share in (shares[label], *shares))])
        return {COMBINED: _csv(table)}

    def _several(self, logits_BC: Tensor, truths_BC: Tensor, weights_B: Tensor | None) -> Loss:
        # L = mean over labels of  -w y log p - (1 - y) log(1 - p),  p = sigmoid(W h + b)
        losses_BC = binary_cross_entropy_with_logits(logits_BC, truths_BC, pos_weight=self._weights_C, reduction="none")
        predicted_BC = logits_BC.detach() > 0
        right_B = (predicted_BC == truths_BC.bool()).all(dim=-1)
        total = _weighted(losses_BC.mean(dim=-1), weights_B).sum()
        return Loss(total, {"accuracy": right_B.sum()}, predicted_BC)

    def _evaluate_several(self, truths_NC: NDArray[np.bool_], outputs: Sequence[Tensor]) -> WholeFile:
        predicted_NC = torch.stack(list(outputs)).numpy()
        right = (truths_NC & predicted_NC).sum(axis=0)
        predicted, true = predicted_NC.sum(axis=0), truths_NC.sum(axis=0)
        table = [["label", "true_positives", "false_positives", "false_negatives", "true_negatives"]]
        for name, tp, p, t in zip(self.config.labels, right, predicted, true, strict=True):
            table.append([name, *map(str, (tp, p - tp, t - tp, len(truths_NC) - p - t + tp))])
        return WholeFile({"macro_f1": macro_f1(right, predicted, true)}, {CONFUSION: _csv(table)})

    def _weights(self, train: TokenizedDataset) -> list[float]:
        """w by label. Of a label that no row has it does not matter."""
        chosen, names, total = self._settings.class_weights, train.labels, len(train)
        if isinstance(chosen, Mapping):
            return [chosen.get(name, 1.0) for name in names]
        if chosen is None:
            return [1.0] * len(names)
        if train.row_label_sets is not None:
            counts = train.row_label_sets.sum(axis=0, dtype=np.int64)
            return [float((total - count) / max(1, count)) or 1.0 for count in counts]  # (n - n_c) / n_c
        assert train.row_labels is not None
        counts = np.bincount(train.row_labels, minlength=len(names))
        return [float(total / (len(names) * max(1, count))) for count in counts]  # n / (k n_c)


def macro_f1(right_C: Counts, predicted_C: Counts, true_C: Counts) -> float:
    """The mean over labels of F1 = 2 TP / (2 TP + FP + FN); 0 for a label that is neither predicted nor true."""
    both_C = predicted_C + true_C
    return float(np.where(both_C > 0, 2 * right_C / np.maximum(both_C, 1), 0.0).mean())


def _weighted(losses_B: Tensor, weights_B: Tensor | None) -> Tensor:
    """Each row's loss times the row's own weight."""
    return losses_B if weights_B is None else losses_B * weights_B


def _csv(table: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()
