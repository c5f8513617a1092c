"""A reward model: TRL's formula, log 2 before the first step, preferences learnt; what is scored has an answer."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import logsigmoid

from service.recipes.objectives.reward_model import RewardModelSettings
from service.recipes.recipe import Recipe
from service.recipes.tuning import tuning_of
from tests.given.slots import LORA, run
from tests.given.tiny_models import random_pairs
from workers.data.batches import Batch, collate
from workers.data.messages import RenderError
from workers.data.render import Renderer
from workers.model.head import read_head
from workers.model.load import LoadedBase, environment
from workers.objectives import HeadObjective, TokenLosses, create_objective
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec

PAIRS = random_pairs(8, seed=3)
CPU = torch.device("cpu")


class States:
    """A base that says these states whatever it reads."""

    def __init__(self, hidden_BTH: torch.Tensor) -> None:
        self._hidden_BTH = hidden_BTH

    def hidden(self, batch: Batch) -> torch.Tensor:
        return self._hidden_BTH

    def token_losses(self, batch: Batch) -> TokenLosses:
        raise NotImplementedError("it has no output layer")

    def logits(self, batch: Batch, keep_K: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("it has no output layer")


def seat(base: LoadedBase) -> Slot:
    recipe = Recipe(objective=RewardModelSettings(), tuning=tuning_of(LORA), task="classify")
    spec = JobSpec(
        job_id="ftjob-1", recipe=recipe, n_epochs=20, batch_size=8, learning_rate=1e-2, seed=7, snapshot_steps=100
    )
    return Slot(base, environment(base.device), spec, PAIRS, None)


def test_loss_and_gradient_are_those_of_trls_reward_trainer() -> None:
    objective = create_objective(RewardModelSettings())
    assert isinstance(objective, HeadObjective)
    objective.prepare(PAIRS, "causal")
    objective.attach(8, CPU)
    assert list(objective.parameters()) == ["weight"]
    batch = collate(PAIRS, range(16), pad_id=0)
    hidden_BTH = torch.randn(*batch.input_ids_BT.shape, 8)
    weight_1H = objective.parameters()["weight"]
    assert objective.loss(States(hidden_BTH), batch).total.item() == pytest.approx(8 * math.log(2), rel=1e-6)
    with torch.no_grad():
        weight_1H.normal_()
    objective.loss(States(hidden_BTH), batch).total.backward()
    theirs_1H = weight_1H.detach().clone().requires_grad_()
    last_B = batch.attention_mask_BT.sum(1) - 1
    rewards_B = hidden_BTH[torch.arange(16), last_B] @ theirs_1H[0]
    chosen, rejected = rewards_B[0::2], rewards_B[1::2]
    loss = -logsigmoid(chosen - rejected).mean()  # trl 1.16, trainer/reward_trainer.py
    loss.backward()
    assert weight_1H.grad is not None and theirs_1H.grad is not None
    torch.testing.assert_close(weight_1H.grad / objective.count(batch), theirs_1H.grad, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        found = objective.loss(States(hidden_BTH), batch)
    assert found.total.item() / 8 == pytest.approx(loss.item(), abs=1e-5)
    assert int(found.sums["accuracy"]) == int((chosen > rejected).sum())


def test_it_learns_eight_preferences_and_its_head_scores_them_so(base: LoadedBase, tmp_path: Path) -> None:
    slot = seat(base)
    metrics = run(slot)
    assert metrics[0]["train_loss"] == pytest.approx(math.log(2), rel=1e-6) and metrics[0]["train_accuracy"] == 0
    assert metrics[-1]["train_accuracy"] == 1 and metrics[-1]["train_loss"] < 0.1
    rows = slot.head_rows()
    slot.save_adapter(tmp_path / "saved", slot.tables())
    slot.leave()
    scores = {tuple(row.ids): row.values[0] for row in rows}
    pairs = [tuple(PAIRS.row(row)[0].tolist() for row in (2 * pair, 2 * pair + 1)) for pair in range(8)]
    assert all(scores[tuple(chosen)] > scores[tuple(other)] for chosen, other in pairs)
    head = read_head(tmp_path / "saved", 32, CPU)
    assert head is not None and head.config.problem_type == "regression" and head.config.num_outputs == 1


def test_what_is_scored_ends_with_an_answer(base: LoadedBase) -> None:
    renderer = Renderer(base.text)
    asked = {"role": "user", "content": "Hi"}
    ids = renderer.answered([asked, {"role": "assistant", "content": "Ho"}])
    assert base.tokenizer.decode(ids).endswith("<|assistant|>Ho<|end|>")
    with pytest.raises(RenderError, match="last message is the assistant's answer"):
        renderer.answered([asked])


@pytest.mark.parametrize(
    ("before", "answer", "said"),
    [
        ([{"role": "user", "content": "Hi"}], {"role": "user", "content": "Ho"}, "the assistant's answer"),
        ([], {"role": "assistant", "content": "Ho"}, "the assistant's answer, and nothing stands before it"),
        (
            [{"role": "wizard", "content": "Hi"}],
            {"role": "assistant", "content": "Ho"},
            "(messages[0].role has the unk",
        ),
        ([{"role": "user", "content": "Hi"}], {"role": "assistant"}, "(messages[1].content is empty)"),
    ],
)
def test_what_is_no_answer_is_said_in_the_words_of_invalid_lines(
    base: LoadedBase, before: list[dict[str, str]], answer: dict[str, str], said: str
) -> None:
    with pytest.raises(RenderError) as refused:
        Renderer(base.text).answered([*before, answer])
    assert said in str(refused.value) and "Input" not in str(refused.value) and "List" not in str(refused.value)
