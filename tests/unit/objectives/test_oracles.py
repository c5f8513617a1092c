"""The preference objectives against TRL's: the same logits, loss and gradient equal to 1e-5, in one process for all.

TRL's ORPO takes the loss of the preferred answer over prompt and answer together, all tokens of a batch alike. The
paper's (equation 2) and ours is the mean over each answer. Both are equal on the batch `bare`, whose prompts are one
token and whose preferred answers are equally long. TRL's DPO has no label smoothing for its own loss; its CPO is that
loss where the reference is 0.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from service.recipes.objective import ObjectiveSettings
from service.recipes.objectives.dpo import DpoSettings
from service.recipes.objectives.kto import KtoSettings
from service.recipes.objectives.orpo import OrpoSettings
from service.recipes.objectives.simpo import SimpoSettings
from tests.given.tiny_models import VOCABULARY
from tests.servers.trl import run_losses
from workers.data.batches import IGNORED, Batch, collate
from workers.data.tokenized import DatasetBuilder
from workers.objectives import create_objective
from workers.objectives.base import TokenLosses, losses_of_columns

pytestmark = pytest.mark.slow  # TRL takes seconds to import
NUM_PAIRS = 6
CASES: Mapping[str, tuple[ObjectiveSettings, Mapping[str, Any]]] = {
    "dpo": (DpoSettings(beta=0.3), {"loss": "dpo", "batch": "pairs", "loss_type": "sigmoid", "beta": 0.3}),
    "dpo, normalised": (
        DpoSettings(beta=5.0, length_normalized=True),
        {"loss": "dpo", "batch": "pairs", "loss_type": "sigmoid_norm", "beta": 5.0},
    ),
    "dpo, smoothed": (
        DpoSettings(beta=0.2, label_smoothing=0.1),
        {"loss": "cpo", "batch": "free", "loss_type": "sigmoid", "beta": 0.2, "label_smoothing": 0.1},
    ),
    "ipo": (
        DpoSettings(loss_type="ipo", beta=0.4, length_normalized=True),
        {"loss": "dpo", "batch": "pairs", "loss_type": "ipo", "beta": 0.4},
    ),
    "kto": (
        KtoSettings(beta=0.2, desirable_weight=1.5, undesirable_weight=0.7),
        {"loss": "kto", "batch": "drifted", "beta": 0.2, "desirable_weight": 1.5, "undesirable_weight": 0.7},
    ),
    "kto, no drift": (
        KtoSettings(beta=0.2),
        {"loss": "kto", "batch": "pairs", "beta": 0.2, "desirable_weight": 1.0, "undesirable_weight": 1.0},
    ),
    "orpo": (OrpoSettings(beta=0.3), {"loss": "orpo", "batch": "bare", "beta": 0.3}),
    "simpo": (
        SimpoSettings(beta=2.5, gamma=0.8),
        {
            "loss": "cpo",
            "batch": "pairs",
            "loss_type": "simpo",
            "beta": 2.5,
            "simpo_gamma": 0.8,
            "label_smoothing": 0.0,
        },
    ),
}


@dataclass(frozen=True)
class SayingEach:
    """A model that says these logits, of all rows or of those on one side of the pairs."""

    logits_BTV: Tensor
    batch: Batch

    def logits(self, batch: Batch, keep_K: Tensor) -> Tensor:
        if len(batch.input_ids_BT) == len(self.logits_BTV):
            return self.logits_BTV[:, keep_K]
        (side,) = [side for side in (0, 1) if torch.equal(batch.input_ids_BT, self.batch.input_ids_BT[side::2])]
        return self.logits_BTV[side::2, keep_K]

    def token_losses(self, batch: Batch) -> TokenLosses:
        return losses_of_columns(self, batch)

    def hidden(self, batch: Batch) -> Tensor:
        raise NotImplementedError("a model without states")


def made(seed: int, prompt: tuple[int, int], chosen: tuple[int, int] = (2, 8)) -> tuple[Batch, Tensor]:
    """Pairs of random tokens whose prompts and preferred answers have these fewest and most tokens, and logits."""
    numbers = np.random.RandomState(seed)
    rows = DatasetBuilder()
    for pair in range(NUM_PAIRS):
        begin = numbers.randint(9, VOCABULARY, numbers.randint(prompt[0], prompt[1] + 1)).tolist()
        for low, high in (chosen, (2, 8)):
            answer = numbers.randint(9, VOCABULARY, numbers.randint(low, high + 1)).tolist()
            rows.add(begin + answer, [0] * len(begin) + [1] * len(answer), label=pair % 2)
    batch = collate(rows.build(rows_per_example=2), range(2 * NUM_PAIRS), pad_id=0)
    logits = torch.from_numpy(numbers.normal(0, 2, (*batch.input_ids_BT.shape, VOCABULARY)).astype(np.float32))
    return batch, logits


@pytest.fixture(scope="module")
def batches() -> dict[str, tuple[Batch, Tensor]]:
    """Batches with the logits that the model gives; `drifted` is farther from its reference than `pairs`, so z > 0."""
    pairs, logits = made(1, prompt=(3, 9))
    reference = -torch.from_numpy(np.random.RandomState(2).uniform(15, 35, 2 * NUM_PAIRS))
    return {
        "pairs": (replace(pairs, reference_B=reference), logits),
        "drifted": (replace(pairs, reference_B=reference - 60), logits),
        "free": (replace(pairs, reference_B=torch.zeros_like(reference)), logits),
        "bare": made(3, prompt=(1, 1), chosen=(5, 5)),
    }


@pytest.fixture(scope="module")
def theirs(batches: dict[str, tuple[Batch, Tensor]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    folder = tmp_path_factory.mktemp("trl")
    tensors = {}
    for name, (batch, logits) in batches.items():
        assert batch.row_labels_B is not None
        completion = (batch.labels_BT != IGNORED).long()
        reference = torch.zeros(2 * NUM_PAIRS) if batch.reference_B is None else batch.reference_B.float()
        parts = {"logits": logits, "ids": batch.input_ids_BT, "attention": batch.attention_mask_BT}
        parts |= {"completion": completion, "reference": reference, "label": batch.row_labels_B[0::2]}
        tensors |= {f"{name}/{part}": tensor.clone() for part, tensor in parts.items()}
    cases = json.dumps({name: settings for name, (_, settings) in CASES.items()})
    save_file(tensors, folder / "given.safetensors", metadata={"cases": cases})
    run_losses(folder / "given.safetensors", folder / "found.safetensors")
    return load_file(folder / "found.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_are_those_of_trl(
    case: str, batches: dict[str, tuple[Batch, Tensor]], theirs: dict[str, Tensor]
) -> None:
    settings, given = CASES[case]
    batch, logits = batches[given["batch"]]
    leaf = logits.clone().requires_grad_(True)
    objective = create_objective(settings)
    forward = SayingEach(leaf, batch)
    with torch.no_grad():
        shared = objective.shared(forward, [batch])
    loss = objective.loss(forward, replace(batch, shared=shared)).total / objective.count(batch)
    loss.backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    assert float(loss.detach()) == pytest.approx(float(theirs[f"{case}/loss"]), abs=1e-5)
    assert float(leaf.grad.abs().max()) > 1e-3
    assert torch.allclose(leaf.grad, theirs[f"{case}/gradient"], rtol=0, atol=1e-5)
    if case.startswith("kto"):
        assert shared is not None and (float(shared[0]) > 0) == (given["batch"] == "drifted")
