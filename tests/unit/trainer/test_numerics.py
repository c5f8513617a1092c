"""The table of what is promised about numbers (docs/performance.md): a gate, with the tolerance of each line.

Against PEFT's own modules and torch's AdamW, each row alone; beside neighbours, with bits.
"""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from service.domain.errors import JobError
from service.recipes.objectives.supervised import SupervisedSettings
from service.recipes.tuning import tuning_of
from tests.given.families import load_family
from tests.given.slots import TRAIN, adapter, seat
from tests.given.tiny_models import rows_of
from workers.data.batches import IGNORED, collate
from workers.model.load import LoadedBase
from workers.objectives import create_objective
from workers.trainer.process import plan
from workers.trainer.process.optimizer import BETAS, EPSILON, MAX_GRADIENT_NORM, learning_rate_factor
from workers.trainer.process.passes import Passes
from workers.trainer.process.slot import Slot
from workers.tunings import create_tuning

STEADY = {"type": "lora", "lora": {"r": 4, "alpha": 8, "target_modules": "all-linear"}}
RATE = 1e-3
STEPS = 20
WEIGHTS, LOSS, EXPORT, COARSE = 1e-5, 1e-6, 1e-5, 1.5


def steady(base: LoadedBase, job_id: str = "ftjob-1") -> Slot:
    return seat(base, job_id, STEADY, n_epochs=5, learning_rate=RATE)


def of_peft(base: LoadedBase, folder: Path) -> nn.Module:
    """PEFT's own model with the adapter of `folder`, in eval mode."""
    config = PeftConfig.from_pretrained(folder)
    config.inference_mode, config.base_model_name_or_path = False, None
    model = get_peft_model(copy.deepcopy(base.model), config).eval()
    set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
    return model


def loss_sum(model: nn.Module, row: int) -> tuple[Tensor, int]:
    """Of one row alone, and how many tokens it trains."""
    batch = collate(TRAIN, [row], pad_id=0)
    logits_TV = model(input_ids=batch.input_ids_BT).logits[0].float()
    losses = cross_entropy(logits_TV, batch.targets_BT[0], ignore_index=IGNORED, reduction="sum")
    return losses, int((batch.targets_BT != IGNORED).sum())


def test_twenty_packed_steps_are_those_of_peft_and_torch_with_each_row_alone(base: LoadedBase, tmp_path: Path) -> None:
    slot = steady(base)
    slot.save_adapter(tmp_path / "begin")
    orders = [slot._examples(step) for step in range(STEPS)]
    measured = [slot.train_step().metrics["train_loss"] for _ in range(STEPS)]
    slot.save_adapter(tmp_path / "end")
    total = slot.total_steps
    slot.leave()
    model = of_peft(base, tmp_path / "begin")
    moving = [one for one in model.parameters() if one.requires_grad]
    adam = torch.optim.AdamW(moving, lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=0.0)
    for step, rows in enumerate(orders):
        parts = [loss_sum(model, row) for row in rows]
        count = sum(tokens for _, tokens in parts)
        (sum(part for part, _ in parts) / count).backward()  # type: ignore[union-attr]
        loss = sum(float(part.detach()) for part, _ in parts) / count
        assert measured[step] == pytest.approx(loss, rel=LOSS), step
        nn.utils.clip_grad_norm_(moving, MAX_GRADIENT_NORM)
        adam.param_groups[0]["lr"] = RATE * learning_rate_factor(step + 1, total)
        adam.step()
        adam.zero_grad()
    ours = load_file(tmp_path / "end" / "adapter_model.safetensors")
    theirs = {name: one for name, one in model.state_dict().items() if "lora_" in name}
    expected = {name.replace(".default", ""): one for name, one in theirs.items()}
    assert ours.keys() == expected.keys()
    difference = torch.cat([(ours[name] - expected[name]).flatten() for name in ours]).norm()
    assert difference <= WEIGHTS * torch.cat([one.flatten() for one in expected.values()]).norm()


def test_an_exported_adapter_gives_pefts_model_the_same_logits(base: LoadedBase, tmp_path: Path) -> None:
    slot = steady(base)
    for _ in range(5):
        slot.train_step()
    slot.save_adapter(tmp_path / "adapter")
    ids = [int(id) for id in TRAIN.row(0)[0]]
    with slot._working():
        ours_KV = slot._passes.next_logprobs(ids)
    slot.leave()
    model = PeftModel.from_pretrained(copy.deepcopy(base.model), tmp_path / "adapter").eval()
    with torch.no_grad():
        theirs_KV = model(input_ids=torch.tensor([ids])).logits[0, :-1].float().log_softmax(dim=-1)
    assert float((ours_KV - theirs_KV).abs().max()) <= EXPORT


def test_jobs_that_join_leave_fail_and_idle_change_no_bit_of_another(base: LoadedBase, tmp_path: Path) -> None:
    """One neighbour computes with NaN and fails, one idles, others come and go at random between the steps."""
    alone = steady(base)
    for _ in range(8):
        alone.train_step()
    expected = adapter(alone, tmp_path / "alone")
    alone.leave()
    numbers = np.random.RandomState(4)
    one, idle, poisoned = steady(base), steady(base, "idle"), steady(base, "poisoned")
    with torch.no_grad():
        for parameter in poisoned._parameters.values():
            parameter.fill_(float("nan"))
    before = adapter(idle, tmp_path / "idle before")
    others: list[Slot] = []
    for step in range(8):
        if numbers.rand() < 0.5:
            others.append(steady(base, f"other-{step}"))
        for other in others:
            other.train_step()
        one.train_step()
        if step == 3:
            with pytest.raises(JobError):
                poisoned.train_step()
            poisoned.leave()
        if others and numbers.rand() < 0.4:
            others.pop(0).leave()
    assert adapter(one, tmp_path / "beside") == expected
    assert adapter(idle, tmp_path / "idle after") == before
    for slot in (one, idle, *others):
        slot.leave()


def coarse_gradient(*, exact: bool = False, packed: bool = False) -> Tensor:
    """Of one step on a base of bfloat16 weights, with the same adapter; `exact` computes with them in float32."""
    base = load_family("llama", torch.bfloat16)
    if exact:
        nn.Module.to(base.model, torch.float32)
    numbers = np.random.RandomState(3)
    rows = rows_of([numbers.randint(3, 97, length).tolist() for length in (7, 19, 7, 12, 30, 9, 14, 25)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tuning = create_tuning(tuning_of(STEADY), base.model, "coarse")
        tuning.attach()
        with torch.no_grad():
            for parameter in tuning.parameters().values():
                parameter.add_(0.05 * torch.randn_like(parameter))
    passes = Passes(base, tuning, create_objective(SupervisedSettings()))
    assert passes.packed
    if not packed:
        passes.plan, passes.packed = 2, False
    tuning.activate()
    passes.train(rows, range(len(rows)))
    gradients = [one.grad for one in tuning.parameters().values() if one.grad is not None]
    assert len(gradients) == len(tuning.parameters()) and all(one.dtype == torch.float32 for one in gradients)
    return torch.cat([one.flatten() for one in gradients])


def test_packing_a_bfloat16_base_rounds_a_gradient_no_more_than_padding_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measure is the gradient of the same weights in float32, and how far rows together and alone are from it."""
    exact = coarse_gradient(exact=True)
    packed = float((coarse_gradient(packed=True) - exact).norm())
    together = float((coarse_gradient() - exact).norm())
    monkeypatch.setattr(plan, "LIMIT_TOKENS", 1)
    alone = float((coarse_gradient() - exact).norm())
    assert 0 < packed <= COARSE * min(together, alone)
    assert packed <= 0.1 * float(exact.norm())
