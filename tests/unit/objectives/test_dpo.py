"""Direct preference optimization, the loss: the paper's gradient, its mask, its weight under micro-batching."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from service.recipes.objectives.dpo import DpoSettings
from service.recipes.objectives.supervised import SupervisedSettings
from service.recipes.tuning import tuning_of
from tests.given.tiny_models import VOCABULARY, Saying, make_tiny_base, random_pairs
from tests.given.tuned import tuned_logits
from workers.data.batches import IGNORED, collate
from workers.data.tokenized import TokenizedDataset
from workers.model.load import LoadedBase, load_base
from workers.objectives import create_objective
from workers.trainer.process.optimizer import JobOptimizer
from workers.trainer.process.passes import Passes
from workers.trainer.process.plan import micro_batches
from workers.tunings import Tuning, create_tuning

BETA = 0.3
LORA = {"type": "lora", "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}}
PROMPT = {"type": "prompt", "prompt": {"num_virtual_tokens": 5}}
PAIRS = random_pairs(10, seed=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")), torch.device("cpu"))


@pytest.mark.parametrize("tuning", [LORA, PROMPT], ids=["lora", "prompt"])
def test_the_gradient_is_that_of_the_papers_formula(base: LoadedBase, tuning: dict[str, Any]) -> None:
    one = attached(base, tuning)
    passes = Passes(base, one, create_objective(DpoSettings(beta=BETA)))
    one.activate()
    reference_N = reference(passes, PAIRS)
    disturb(one)
    expected_loss = plain_loss(base, one, PAIRS, reference_N)
    expected_loss.backward()
    expected = gradient(one)
    for parameter in one.parameters().values():
        parameter.grad = None
    measured, _ = passes.train(PAIRS, range(10), reference_N).read()
    found = gradient(one)
    one.detach()
    assert measured.loss == pytest.approx(float(expected_loss.detach()), abs=1e-6)
    assert float(expected.abs().max()) > 1e-3
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_micro_batches_weigh_by_pairs(base: LoadedBase) -> None:
    one = attached(base, LORA)
    objective = create_objective(DpoSettings(beta=BETA))
    passes = Passes(base, one, objective)
    one.activate()
    reference_N = reference(passes, PAIRS)
    disturb(one)
    passes.train(PAIRS, range(10), reference_N)
    together = gradient(one)
    for parameter in one.parameters().values():
        parameter.grad = None
    for pairs in ([0], [1, 2, 3, 4, 5], [6, 7], [8, 9]):
        rows = PAIRS.rows_of(pairs)
        batch = collate(PAIRS, rows, base.pad_id)
        with_reference = replace(batch, reference_B=reference_N[rows])
        assert objective.count(with_reference) == len(pairs)
        (objective.loss(passes, with_reference).total / 10).backward()  # type: ignore[no-untyped-call]
    apart = gradient(one)
    one.detach()
    assert torch.allclose(together, apart, rtol=1e-4, atol=1e-6)


def test_the_weight_of_a_pair_multiplies_its_loss_and_the_divisor_stays_their_number(base: LoadedBase) -> None:
    weights_P = torch.linspace(0.1, 1, 10)
    weighted = replace(PAIRS, row_weights=weights_P.repeat_interleave(2).numpy())
    one = attached(base, LORA)
    passes = Passes(base, one, create_objective(DpoSettings(beta=BETA)))
    one.activate()
    reference_N = reference(passes, PAIRS)
    disturb(one)
    alone = [passes.measure(PAIRS, [pair], reference_N).loss for pair in range(10)]
    measured = passes.measure(weighted, range(10), reference_N)
    one.detach()
    assert measured.loss == pytest.approx(float((torch.tensor(alone) * weights_P).sum()) / 10, abs=1e-6)


def test_a_plan_never_parts_a_pair() -> None:
    groups = micro_batches(range(5), [10, 30, 10, 20, 30], rows_per_example=2, version=1, limit_tokens=80)
    assert groups == [[1], [4], [3, 0], [2]]
    assert PAIRS.rows_of(groups[2]) == [6, 7, 0, 1]


def test_only_the_answers_have_a_gradient() -> None:
    rows = PAIRS.rows_of(range(4))
    batch = collate(PAIRS, rows, pad_id=0)
    batch = replace(batch, reference_B=torch.zeros(8, dtype=torch.float64))
    logits_BTV = torch.randn(*batch.input_ids_BT.shape, VOCABULARY, requires_grad=True)
    loss = create_objective(DpoSettings(beta=0.1)).loss(Saying(logits_BTV), batch)
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert logits_BTV.grad is not None
    moved_BT = logits_BTV.grad.abs().sum(dim=2) > 0
    assert torch.equal(moved_BT[:, :-1], (batch.labels_BT != IGNORED)[:, 1:])
    assert not moved_BT[:, -1].any()


def test_it_is_not_supervised_training(base: LoadedBase) -> None:
    """Supervised training makes both answers likelier; this makes the other answer less likely."""
    change = {}
    for settings in (DpoSettings(beta=BETA), SupervisedSettings()):
        one = attached(base, LORA)
        passes = Passes(base, one, create_objective(settings))
        optimizer = JobOptimizer(one.parameters(), 1e-2)
        one.activate()
        before_N = reference(passes, PAIRS)
        for step in range(10):
            passes.train(PAIRS, range(10), before_N)
            optimizer.clip()
            optimizer.step(step + 1, 10)
        change[settings.name] = (reference(passes, PAIRS) - before_N)[1::2].mean()
        one.detach()
    assert change["dpo"] < 0 < change["supervised"]


def attached(base: LoadedBase, spec: dict[str, Any]) -> Tuning:
    torch.manual_seed(0)  # an adapter draws its first weights
    tuning = create_tuning(tuning_of(spec), base.model, "one")
    tuning.attach()
    return tuning


def disturb(tuning: Tuning) -> None:
    """Moves the policy off its reference."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)


def reference(passes: Passes, dataset: TokenizedDataset) -> Tensor:
    found = passes.logprobs(dataset, range(dataset.num_examples))
    return torch.tensor([found[row] for row in range(len(dataset))], dtype=torch.float64)


def plain_loss(base: LoadedBase, tuning: Tuning, dataset: TokenizedDataset, reference_N: Tensor) -> Tensor:
    """-log(1 / (1 + exp(-beta ((log pi(y_w) - ref_w) - (log pi(y_l) - ref_l))))), row by row, mean over pairs."""
    ratios = []
    for row in range(len(dataset)):
        tokens, trained = (torch.from_numpy(array.astype("int64")) for array in dataset.row(row))
        logits_TV = tuned_logits(tuning, tokens[None], torch.ones_like(tokens)[None])[0]
        logprobs_T = torch.log_softmax(logits_TV[:-1].double(), dim=1).gather(1, tokens[1:, None])[:, 0]
        ratios.append((logprobs_T * trained[1:]).sum() - reference_N[row])
    ratio_P = torch.stack(ratios[0::2]) - torch.stack(ratios[1::2])
    return torch.log(1 + torch.exp(-BETA * ratio_P)).mean()


def gradient(tuning: Tuning) -> Tensor:
    return torch.cat([p.grad.flatten().clone() for p in tuning.parameters().values() if p.grad is not None])
