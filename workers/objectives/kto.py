"""Kahneman-Tversky optimization (Ethayarajh et al., 2024, arXiv 2402.01306): wanted answers become likelier than the
policy's own drift from its reference would make them, unwanted ones less likely.

Row 2k of a batch is an answer with its label, row 2k + 1 its mismatched one (`workers.data.examples`).
Shapes: B rows, P answers.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from service.recipes.objectives.kto import KtoSettings
from workers.data.batches import Batch
from workers.objectives.base import OBJECTIVES, Forward, Loss, Objective
from workers.objectives.logprobs import logprobs

ANSWERS, MISMATCHED = slice(0, None, 2), slice(1, None, 2)


@OBJECTIVES.of(KtoSettings)
class Kto(Objective):
    """The sum over answers of lambda - v, which is half of lambda where r and z are 0.

    The mismatched rows are scored once for the whole step, so the estimate does not depend on how it is cut.
    """

    needs_reference = True

    def __init__(self, settings: KtoSettings) -> None:
        self._settings = settings

    def count(self, batch: Batch) -> int:
        return len(batch.labels_BT) // 2

    def shared(self, forward: Forward, batches: Iterable[Batch]) -> Tensor:
        """z of the step, and how many of its answers are wanted and unwanted."""
        ratios, wanted = [], []
        for batch in batches:
            ratios.append(_ratios(forward, batch.rows(MISMATCHED)))
            wanted.append(_wanted(batch.rows(ANSWERS)))
        # z = max(0, 1/m sum_i log pi(y'_i | x_i) / pi_ref(y'_i | x_i)),  y' the completion of another prompt
        drift = torch.cat(ratios).mean().clamp(min=0)
        wanted_P = torch.cat(wanted)
        return torch.stack([drift, wanted_P.sum(dtype=drift.dtype), (~wanted_P).sum(dtype=drift.dtype)])

    def loss(self, forward: Forward, batch: Batch) -> Loss:
        assert batch.shared is not None, "computed before the step's losses"
        drift, num_wanted, num_unwanted = batch.shared
        answers = batch.rows(ANSWERS)
        wanted_P = _wanted(answers)
        ratios_P = _ratios(forward, answers)
        # v = lambda_D sigmoid(beta (r - z)) of a wanted answer, lambda_U sigmoid(beta (z - r)) of an unwanted one
        distances_P = self._settings.beta * (ratios_P - drift)
        towards_P = torch.where(wanted_P, distances_P, -distances_P)
        lambdas_P = torch.where(wanted_P, self._settings.desirable_weight, self._settings.undesirable_weight)
        # L = E[lambda_y - v(x, y)]
        losses_P = lambdas_P * (1 - torch.sigmoid(towards_P))
        if answers.row_weights_B is not None:
            losses_P = losses_P * answers.row_weights_B
        rewards_P = self._settings.beta * ratios_P.detach()
        # The loop divides each sum by the number of all answers; these are means of one kind, NaN where it is absent.
        num_answers = num_wanted + num_unwanted
        chosen = (rewards_P * wanted_P).sum() * num_answers / num_wanted
        rejected = (rewards_P * ~wanted_P).sum() * num_answers / num_unwanted
        sums = {
            "accuracy": (towards_P.detach() > 0).sum(),
            "reward_margin": chosen - rejected,
            "rewards_chosen": chosen,
            "rewards_rejected": rejected,
            "kl": drift * len(wanted_P),
        }
        return Loss(losses_P.sum(), sums)


def _ratios(forward: Forward, batch: Batch) -> Tensor:
    """log pi(y | x) - log pi_ref(y | x) of each row."""
    assert batch.reference_B is not None, "computed before the first step"
    return logprobs(forward, batch) - batch.reference_B


def _wanted(answers: Batch) -> Tensor:
    assert answers.row_labels_B is not None, "every file of this objective has labels"
    return answers.row_labels_B == 1
