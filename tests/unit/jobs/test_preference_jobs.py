"""Jobs of every objective that learns from preferences: where they begin, that they learn, that they resume in the same
bits, and that a neighbour does not change them. What is special to plain dpo is in test_dpo_job.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from service.recipes.objective import find_objective
from tests.given.contrasts import random_contrasts
from tests.given.recipes import recipe
from tests.given.slots import LORA, adapter
from tests.given.tiny_models import make_tiny_base, random_pairs
from tests.given.unpaired_answers import random_answers
from workers.data.examples import with_mismatched
from workers.data.tokenized import DatasetBuilder, TokenizedDataset
from workers.model.load import LoadedBase, environment, load_base
from workers.objectives import create_objective
from workers.trainer.process import plan
from workers.trainer.process.passes import Passes
from workers.trainer.process.slot import Phase, Slot
from workers.trainer.protocol import JobSpec
from workers.tunings import create_tuning

JOBS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ipo": ("dpo", {"loss_type": "ipo", "beta": 0.2}),
    "dpo, normalised": ("dpo", {"length_normalized": True, "beta": 5.0}),
    "dpo, smoothed": ("dpo", {"label_smoothing": 0.1, "beta": 0.3}),
    "orpo": ("orpo", {}),
    "simpo": ("simpo", {}),
    "kto": ("kto", {"beta": 0.3}),
}
EMBEDDING: Mapping[str, tuple[str, dict[str, Any]]] = {"embedding": ("embedding", {})}  # no answers, and no rewards
every_job = pytest.mark.parametrize("name", JOBS)
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")), torch.device("cpu"))


def rows(name: str, number: int, seed: int) -> TokenizedDataset:
    if name == "embedding":
        return random_contrasts(number, seed, negatives=True)
    return random_answers(number, seed) if name == "kto" else random_pairs(number, seed)


def seat(base: LoadedBase, name: str, job_id: str = "ftjob-1", **changes: Any) -> Slot:
    objective, settings = {**JOBS, **EMBEDDING}[name]
    values: dict[str, Any] = {
        "n_epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "seed": 7, "snapshot_steps": 100, **changes
    }  # fmt: skip
    spec = JobSpec(job_id=job_id, recipe=recipe(LORA, objective, **settings), **values)
    return Slot(base, environment(base.device), spec, rows(name, 10, seed=1), rows(name, 4, seed=2))


def prepared(slot: Slot) -> Slot:
    while slot.phase is Phase.PREPARE:
        slot.prepare()
    return slot


def run(slot: Slot) -> list[dict[str, float]]:
    metrics = []
    prepared(slot)
    while not slot.finished:
        metrics.append(slot.train_step().metrics)
    return metrics


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("ipo", 1 / (4 * 0.2**2)),
        ("dpo, normalised", math.log(2)),
        ("dpo, smoothed", math.log(2)),
        ("kto", 0.5),
    ],
)
def test_with_a_reference_the_first_loss_is_known(base: LoadedBase, name: str, loss: float) -> None:
    slot = prepared(seat(base, name))
    first = slot.train_step().metrics
    slot.leave()
    assert first["train_loss"] == pytest.approx(loss, abs=1e-5)
    assert first["train_rewards_chosen"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", ["orpo", "simpo"])
def test_without_a_reference_nothing_is_prepared(base: LoadedBase, name: str) -> None:
    slot = seat(base, name)
    assert slot.phase is Phase.UPDATE
    slot.leave()


@slow
@every_job
def test_it_learns_what_is_preferred_and_tells_its_metrics(base: LoadedBase, name: str) -> None:
    slot = seat(base, name, n_epochs=12, batch_size=10)
    metrics = run(slot)
    slot.leave()
    first, last = metrics[0], metrics[-1]
    assert last["train_loss"] < 0.9 * first["train_loss"]
    assert last["train_reward_margin"] > first["train_reward_margin"]
    assert last["train_accuracy"] >= 0.9
    told = {f"full_valid_{metric}" for metric in ("loss", *find_objective(JOBS[name][0]).metrics)}
    assert told <= last.keys()


@slow
@pytest.mark.parametrize("name", [*JOBS, *EMBEDDING])
def test_a_resumed_job_ends_in_the_same_bits_beside_a_neighbour_too(
    base: LoadedBase, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in EMBEDDING:  # whose step has several micro-batches
        monkeypatch.setattr(plan, "LIMIT_TOKENS", 64)
    slot = prepared(seat(base, name))
    metrics = []
    for step in range(slot.total_steps):
        if step == 3:
            slot.snapshot().write(tmp_path / "snapshot")
        metrics.append(slot.train_step().metrics)
    expected = adapter(slot, tmp_path / "undisturbed")
    slot.leave()
    neighbour = prepared(seat(base, "simpo", "ftjob-2", learning_rate=5e-2))
    again = seat(base, name)
    assert again.restore(tmp_path / "snapshot") == ""
    while not again.finished:
        neighbour.train_step()
        assert again.train_step().metrics == metrics[again.step - 1]
    neighbour.leave()
    assert adapter(again, tmp_path / "resumed") == expected
    again.leave()


def test_the_drift_of_kto_is_of_the_whole_step_however_it_is_cut(
    base: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    data = random_answers(6, seed=3)
    settings = recipe(LORA, "kto", beta=0.3)
    torch.manual_seed(0)
    tuning = create_tuning(settings.tuning, base.model, "one")
    tuning.attach()
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    tuning.activate()
    reference = torch.full((len(data),), -100.0, dtype=torch.float64)
    for limit_tokens in (plan.LIMIT_TOKENS, 1):
        monkeypatch.setattr(plan, "LIMIT_TOKENS", limit_tokens)
        passes = Passes(base, tuning, create_objective(settings.objective))
        measured.append(passes.measure(data, range(6), reference))
    tuning.detach()
    together, apart = measured
    assert together.others["kl"] > 0.1
    assert apart.loss == pytest.approx(together.loss, abs=1e-6)
    assert apart.others == pytest.approx(together.others, abs=1e-4)


def test_the_drift_of_kto_moves_on_pairs_too(base: LoadedBase) -> None:
    """The two answers to a prompt stand next to each other; their mismatched ones are of both kinds."""
    pairs, answers = random_pairs(8, seed=4), DatasetBuilder()
    for row in range(len(pairs)):
        prompt, answer = pairs.prompt(row).tolist(), [40, 41, 42] if row % 2 == 0 else [50, 51, 52]
        answers.add(prompt + answer, [0] * len(prompt) + [1] * len(answer), label=1 - row % 2)
    values = {"n_epochs": 6, "batch_size": 16, "learning_rate": 1e-2, "seed": 7, "snapshot_steps": 100}
    spec = JobSpec(job_id="ftjob-1", recipe=recipe(LORA, "kto"), **values)
    slot = Slot(base, environment(base.device), spec, with_mismatched(answers.build(), 256), None)
    drifts = [one["train_kl"] for one in run(slot)]
    slot.leave()
    assert drifts[0] == pytest.approx(0, abs=1e-4)
    assert max(drifts) > 0.1, drifts


def test_a_step_without_unwanted_answers_has_no_margin(base: LoadedBase) -> None:
    slot = prepared(seat(base, "kto", batch_size=1))
    found = [slot.train_step().metrics for _ in range(10)]
    slot.leave()
    named = [{name for name in one if "rewards" in name and name.startswith("train")} for one in found]
    assert {frozenset(names) for names in named} == {
        frozenset({"train_rewards_chosen"}), frozenset({"train_rewards_rejected"})
    }  # fmt: skip
    assert not any("train_reward_margin" in one for one in found)
