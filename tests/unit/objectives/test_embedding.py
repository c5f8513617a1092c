"""Embeddings by contrast: the formula's loss and gradient over the whole step however it is cut; what a job learns."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from service.domain.errors import JobError
from service.recipes.objectives.embedding import EmbeddingSettings
from tests.given.contrasts import random_contrasts
from tests.given.encoders import load_encoder
from tests.given.recipes import recipe
from tests.given.slots import LORA, run
from workers.data.batches import collate
from workers.data.tokenized import TokenizedDataset
from workers.model.head import read_head
from workers.model.load import LoadedBase, environment
from workers.objectives import HeadObjective, create_objective
from workers.trainer.process import plan
from workers.trainer.process.passes import Passes, Sums
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec
from workers.tunings import Tuning, create_tuning

SCALE = 20.0
PAIRS = random_contrasts(7, seed=3)
KINDS = {
    "pairs": PAIRS,
    "triplets": random_contrasts(7, seed=4, negatives=True),
    "weighted": random_contrasts(7, seed=5, negatives=True, weighted=True),
}
DROPOUT = {"type": "lora", "lora": {"r": 4, "alpha": 8, "dropout": 0.4, "target_modules": "all-linear"}}
PLAIN = {"type": "lora", "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}}


@pytest.fixture(params=["encoder", "causal"])
def base(request: pytest.FixtureRequest) -> LoadedBase:
    found: LoadedBase = load_encoder("bert") if request.param == "encoder" else request.getfixturevalue("loaded")
    return found


class Job:
    """One tuning on the base, far from where it began, and an objective."""

    def __init__(self, base: LoadedBase, spec: dict[str, Any], **settings: Any) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.tuning: Tuning = create_tuning(recipe(spec).tuning, base.model, "one")
            self.tuning.attach()
            with torch.no_grad():
                for parameter in self.tuning.parameters().values():
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
        objective = create_objective(EmbeddingSettings(**settings))
        assert isinstance(objective, HeadObjective)
        self.objective = objective
        self.objective.prepare(PAIRS, base.kind)
        self.objective.attach(32, base.device)
        self.passes = Passes(base, self.tuning, self.objective)
        self.tuning.activate()

    def step(self, data: TokenizedDataset) -> tuple[Sums, Tensor]:
        """The sums, and the gradient of all parameters."""
        self._forget()
        torch.manual_seed(11)
        sums = self.passes.train(data, range(data.num_examples))
        return sums, self._gradient()

    def by_the_formula(
        self, base: LoadedBase, data: TokenizedDataset, groups: list[list[int]]
    ) -> tuple[Tensor, Tensor]:
        """The step's mean loss and its gradient, with one graph of all vectors. The groups only say which rows go
        through the base together, so that dropout draws the same numbers."""
        self._forget()
        torch.manual_seed(11)
        self.tuning.train(True)
        vectors: dict[int, Tensor] = {}
        for rows in groups:
            batch = collate(data, rows, base.pad_id)
            states_BTH = self.passes.hidden(batch)
            mask_BT1 = batch.attention_mask_BT[..., None]
            if base.kind == "encoder":
                pooled_BH = (states_BTH * mask_BT1).sum(1) / mask_BT1.sum(1)
            else:
                pooled_BH = states_BTH[torch.arange(len(rows)), mask_BT1.sum((1, 2)) - 1]
            vectors |= zip(rows, normalize(pooled_BH, dim=-1), strict=True)
        self.tuning.train(False)
        size = data.rows_per_example
        texts = [[vectors[size * example + row] for example in range(data.num_examples)] for row in range(size)]
        candidates = [text for column in texts[1:] for text in column]
        losses = []
        for number, anchor in enumerate(texts[0]):
            scores_C = torch.stack([SCALE * (anchor @ candidate) for candidate in candidates])
            weight = 1.0 if data.row_weights is None else float(data.row_weights[size * number])
            losses.append(weight * (scores_C.exp().sum().log() - scores_C[number]))
        loss = torch.stack(losses).mean()
        loss.backward()
        return loss.detach(), self._gradient()

    def _forget(self) -> None:
        for parameter in self.tuning.parameters().values():
            parameter.grad = None

    def _gradient(self) -> Tensor:
        return torch.cat([one.grad.flatten() for one in self.tuning.parameters().values() if one.grad is not None])


@pytest.mark.parametrize("limit_tokens", [30, 100_000], ids=["many micro-batches", "one"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_those_of_the_whole_step(
    base: LoadedBase, kind: str, limit_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout included: a row's vector is the same when it is computed again for its gradient."""
    monkeypatch.setattr(plan, "LIMIT_TOKENS", limit_tokens)
    data, job = KINDS[kind], Job(base, DROPOUT)
    try:
        groups = job.passes._groups(data, range(data.num_examples))
        assert (len(groups) == 1) is (limit_tokens > 30)
        sums, gradient = job.step(data)
        measured, _ = sums.read()
        loss, expected = job.by_the_formula(base, data, groups)
    finally:
        job.tuning.detach()
    assert measured.loss == pytest.approx(float(loss), abs=1e-5)
    assert float(expected.abs().max()) > 0
    torch.testing.assert_close(gradient, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=1e-5)


def test_it_is_sentence_transformers_formula_and_counts_who_is_nearest() -> None:
    """sentence_transformers/losses/MultipleNegativesRankingLoss.py: cross entropy of scale times cosines."""
    base = load_encoder("bert")
    job = Job(base, PLAIN, scale=7.0, pooling="cls")
    try:
        measured = job.passes.measure(KINDS["triplets"], range(7))
        with torch.no_grad():
            states = job.passes.hidden(collate(KINDS["triplets"], range(21), base.pad_id))[:, 0]
    finally:
        job.tuning.detach()
    anchors, positives, negatives = states[0::3], states[1::3], states[2::3]
    scores = torch.cosine_similarity(anchors[:, None], torch.cat([positives, negatives])[None], dim=-1) * 7.0
    loss = torch.nn.CrossEntropyLoss()(scores, torch.arange(7))
    assert measured.loss == pytest.approx(float(loss), abs=1e-5)
    assert measured.others["accuracy"] == pytest.approx(float((scores.argmax(1) == torch.arange(7)).float().mean()))


def seat(base: LoadedBase, train: TokenizedDataset, valid: TokenizedDataset | None = None, **changes: Any) -> Slot:
    values: dict[str, Any] = {"n_epochs": 6, "batch_size": 8, "learning_rate": 1e-2, **changes}
    job = recipe(LORA, "embedding").model_copy(update={"task": "embed"})
    spec = JobSpec(job_id="ftjob-1", recipe=job, seed=7, snapshot_steps=100, **values)
    return Slot(base, environment(base.device), spec, train, valid)


def test_it_learns_its_pairs_and_its_head_has_no_weights(tmp_path: Path) -> None:
    base = load_encoder("distilbert")
    slot = seat(base, random_contrasts(24, seed=6), random_contrasts(11, seed=7))
    metrics = run(slot)
    assert metrics[-1]["train_accuracy"] > metrics[0]["train_accuracy"]
    assert metrics[-1]["train_loss"] < 0.7 * metrics[0]["train_loss"]
    assert {"valid_accuracy", "full_valid_loss", "full_valid_accuracy"} <= metrics[-1].keys()
    rows = slot.head_rows()
    slot.save_adapter(tmp_path / "saved")
    slot.leave()
    for row in rows:
        assert math.hypot(*row.values) == pytest.approx(1, abs=1e-5)
    assert max(math.dist(row.values, row.base_values) for row in rows) > 0.1
    head = read_head(tmp_path / "saved", 32, torch.device("cpu"))
    assert head is not None and not head.parameters
    assert (head.config.problem_type, head.config.pooling) == ("embedding", "mean")


def test_a_validation_file_is_measured_in_even_steps_of_the_jobs_size() -> None:
    """11 examples at a batch size of 8 are 5 and 6: more would be a harder task than training's, 3 an easier one."""
    base, valid = load_encoder("bert"), random_contrasts(11, seed=7)
    slot = seat(base, random_contrasts(8, seed=6), valid, n_epochs=1)
    found = run(slot)[-1]
    passes = slot._passes
    with slot._working():
        parts = [(passes.measure(valid, part), len(part)) for part in (range(5), range(5, 11))]
    slot.leave()
    assert found["full_valid_loss"] == pytest.approx(sum(one.loss * size for one, size in parts) / 11)
    assert found["full_valid_accuracy"] == pytest.approx(sum(one.others["accuracy"] * size for one, size in parts) / 11)


def test_a_model_that_returns_its_bases_vectors_is_no_model() -> None:
    slot = seat(load_encoder("bert"), PAIRS, n_epochs=1, learning_rate=1e-9)
    run(slot)
    slot.check_changed()
    with pytest.raises(JobError, match="returns the vectors of its base"):
        slot.head_rows()
    slot.leave()


def test_a_job_that_continues_another_reads_the_same_vector(tmp_path: Path) -> None:
    base = load_encoder("bert")
    parent = seat(base, PAIRS, n_epochs=1)
    run(parent)
    parent.save_adapter(tmp_path / "parent")
    parent.leave()
    job = recipe(LORA, "embedding", pooling="cls").model_copy(update={"task": "embed"})
    spec = JobSpec(
        job_id="ftjob-2", recipe=job, seed=7, snapshot_steps=100, n_epochs=1, batch_size=4, learning_rate=1e-2
    )
    child = Slot(base, environment(base.device), spec, PAIRS, None)
    with pytest.raises(JobError, match="it reads the vector 'mean' and not 'cls'"):
        child.continue_from(tmp_path / "parent")
    child.leave()
