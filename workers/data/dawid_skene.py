"""Several noisy labels per row as one (Dawid & Skene, 1979, "Maximum likelihood estimation of observer error-rates
using the EM algorithm", Applied Statistics 28): how often each annotator takes one label for another is estimated
together with the labels, so that an annotator who is mostly right counts more than one who guesses.

Plain numpy; does not depend on rows or names. Shapes: N rows, A annotators, C labels, V votes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_ROUNDS = 200
TOLERANCE = 1e-6  # of the largest change of a probability
_LEAST = 1e-12  # of a probability before its logarithm

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Votes:
    """One annotator's label for one row each, as three numbers per vote."""

    rows_V: Indices
    annotators_V: Indices
    labels_V: Indices


@dataclass(frozen=True)
class Combined:
    """What was estimated."""

    labels_NC: Floats  # the probability of each label of each row
    priors_C: Floats  # how frequent each label is
    errors_ACC: Floats  # [annotator, true label, label given]: how often; NaN where the annotator saw no such row


def combine(
    votes: Votes, num_rows: int, num_annotators: int, num_labels: int, known_N: Indices | None = None
) -> Combined:
    """The labels' probabilities by EM, which begins with the share of each label among a row's votes.

    `known_N` has the label of rows whose label is certain, which stays it, and -1 for all others (the paper's section
    2). Every other row needs a vote. Equal votes give equal bits.
    """
    known_N = np.full(num_rows, -1, dtype=np.int64) if known_N is None else known_N
    certain_N = known_N >= 0
    certain_NC = np.eye(num_labels)[known_N]
    counts_NC = np.zeros((num_rows, num_labels))
    np.add.at(counts_NC, (votes.rows_V, votes.labels_V), 1)
    # T_ij = n_ij / sum_j n_ij                                                    equation 3.1, the first estimate
    labels_NC = counts_NC / np.maximum(counts_NC.sum(axis=1, keepdims=True), 1)
    labels_NC = np.where(certain_N[:, None], certain_NC, labels_NC)
    for _ in range(MAX_ROUNDS):
        before_NC = labels_NC
        priors_C, errors_ACC = _estimates(votes, labels_NC, num_annotators)
        labels_NC = np.where(certain_N[:, None], certain_NC, _labels(votes, num_rows, priors_C, errors_ACC))
        if np.abs(labels_NC - before_NC).max() < TOLERANCE:
            break
    return Combined(labels_NC, *_estimates(votes, labels_NC, num_annotators))


def _estimates(votes: Votes, labels_NC: Floats, num_annotators: int) -> tuple[Floats, Floats]:
    """The M-step."""
    size = labels_NC.shape[1]
    sums_ACC = np.zeros((num_annotators, size, size))
    np.add.at(sums_ACC.transpose(0, 2, 1), (votes.annotators_V, votes.labels_V), labels_NC[votes.rows_V])
    with np.errstate(invalid="ignore"):
        # pi_jl^(k) = sum_i T_ij n_il^(k) / sum_l sum_i T_ij n_il^(k)              equation 2.3
        errors_ACC = sums_ACC / sums_ACC.sum(axis=2, keepdims=True)
    # p_j = sum_i T_ij / I                                                         equation 2.4
    return labels_NC.mean(axis=0), errors_ACC


def _labels(votes: Votes, num_rows: int, priors_C: Floats, errors_ACC: Floats) -> Floats:
    """The E-step, in logarithms."""
    logs_ACC = np.log(np.maximum(np.nan_to_num(errors_ACC), _LEAST))
    # p(T_ij = 1 | data) ~ p_j prod_k prod_l (pi_jl^(k))^(n_il^(k))                equation 2.5
    scores_NC = np.tile(np.log(np.maximum(priors_C, _LEAST)), (num_rows, 1))
    np.add.at(scores_NC, votes.rows_V, logs_ACC[votes.annotators_V, :, votes.labels_V])
    weights_NC = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
    labels_NC: Floats = weights_NC / weights_NC.sum(axis=1, keepdims=True)
    return labels_NC
