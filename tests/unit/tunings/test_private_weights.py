"""Full and partial fine-tuning: what moves, what it costs, and what the shared base never notices."""

import gc
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from service.domain.errors import InvalidRequest, JobError
from service.recipes.base import Base, Serving
from service.recipes.catalogue import served_by
from service.recipes.objectives.supervised import SupervisedSettings
from service.recipes.tuning import BaseSize, check_servable, tuning_of
from service.recipes.tunings.full import FullSettings
from service.recipes.tunings.lora import LoraSettings
from service.recipes.tunings.partial import PartialSettings
from tests.given.families import FAMILIES, FAMILY_VOCABULARY, load_family
from tests.given.slots import LORA, adapter, run, seat
from tests.given.tiny_models import make_tiny_base, rows_of
from tests.given.tuned import tuned_logits
from workers.model.load import LoadedBase, load_base, weights_digest
from workers.objectives import create_objective
from workers.trainer.process import faults
from workers.trainer.process.agreement import Candidate, EffectMeter
from workers.trainer.process.optimizer import JobOptimizer
from workers.trainer.process.passes import Passes
from workers.tunings import AdapterMismatch, Tuning, create_tuning, open_tuning

pytestmark = pytest.mark.slow

FULL: dict[str, Any] = {"type": "full", "full": {}}
CPU = torch.device("cpu")
IDS_BT = torch.randint(3, FAMILY_VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(5))
BLOCK = dict.fromkeys(FAMILIES, "model.layers.") | dict.fromkeys(("bloom", "gpt2"), "transformer.h.")


def partial(parameters: str | list[str] = "last:1") -> dict[str, Any]:
    return {"type": "partial", "partial": {"parameters": parameters}}


def attached(base: LoadedBase, spec: dict[str, Any], name: str = "one") -> Tuning:
    tuning = create_tuning(tuning_of(spec), base.model, name)
    tuning.attach()
    return tuning


@torch.no_grad()
def logits(base: LoadedBase, tuning: Tuning | None = None) -> Tensor:
    if tuning is not None:
        return tuned_logits(tuning, IDS_BT, torch.ones_like(IDS_BT), [5] * len(IDS_BT))
    output: Tensor = base.model(IDS_BT).logits
    return output


def train(base: LoadedBase, tuning: Tuning, num_steps: int = 3, rate: float = 1e-3) -> None:
    passes = Passes(base, tuning, create_objective(SupervisedSettings()))
    optimizer = JobOptimizer(tuning.parameters(), rate)
    rows = rows_of(IDS_BT.tolist())
    for step in range(1, num_steps + 1):
        passes.train(rows, range(len(rows)))
        optimizer.clip()
        optimizer.step(step, num_steps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("spec", [FULL, partial()], ids=["full", "partial"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_begins_as_the_base_moves_its_own_and_is_the_same_once_loaded(
    family: str, spec: dict[str, Any], dtype: torch.dtype, tmp_path: Path
) -> None:
    base = load_family(family, dtype)
    own = dict(base.model.named_parameters())
    moving = set(own) if spec == FULL else {name for name in own if name.startswith(f"{BLOCK[family]}1.")}
    before = logits(base)
    tuning = attached(base, spec)
    assert torch.equal(logits(base, tuning), before)
    assert set(tuning.parameters()) == moving
    assert {parameter.dtype for parameter in tuning.parameters().values()} == {torch.float32}
    train(base, tuning, rate=1e-2)
    tuned = logits(base, tuning)
    copied = dict(tuning.model.named_parameters())
    assert {name for name in own if not torch.equal(own[name], copied[name])} == moving
    assert torch.equal(logits(base), before) and weights_digest(base.model) == base.hashes["weights"]
    tuning.save(tmp_path, base.public_source)
    tuning.detach()
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert set(saved) == moving and {tensor.dtype for tensor in saved.values()} == {dtype}
    again = open_tuning(tmp_path, base.model, "again")
    assert torch.equal(logits(base, again), tuned)
    again.detach()


def test_steps_too_small_for_the_bases_type_add_up() -> None:
    base = load_family("llama", torch.bfloat16)
    tuning = attached(base, partial(["model.norm"]))
    (exact,) = tuning.parameters().values()
    (copied,) = [one for name, one in tuning.model.named_parameters() if name == "model.norm.weight"]
    before_H, exact_before_H = copied.detach().clone(), exact.detach().clone()
    train(base, tuning, 1, rate=1e-3)  # half of bfloat16's distance between 1 and the next number is 4e-3
    logits(base, tuning)
    assert torch.equal(copied, before_H) and not torch.equal(exact, exact_before_H)
    train(base, tuning, 20, rate=1e-3)
    logits(base, tuning)
    assert not torch.equal(copied, before_H)
    assert torch.equal(copied, exact.bfloat16())


def test_last_blocks_biases_and_names() -> None:
    def moving(family: str, parameters: str | list[str]) -> set[str]:
        tuning = attached(load_family(family), partial(parameters))
        return set(tuning.parameters())

    names = {name for name, _ in load_family("gpt2").model.named_parameters()}
    assert moving("gpt2", "last:2") == {name for name in names if name.startswith("transformer.h.")}
    assert moving("gpt2", "biases") == {name for name in names if name.endswith(".bias")}
    assert moving("gpt2", ["h.0.ln_1", "ln_f.bias"]) == {
        "transformer.h.0.ln_1.weight",
        "transformer.h.0.ln_1.bias",
        "transformer.ln_f.bias",
    }
    assert moving("gpt2", ["lm_head"]) == {"transformer.wte.weight"}  # tied: one tensor with two names
    assert moving("llama", ["lm_head"]) == {"lm_head.weight"}
    assert moving("llama", ["norm"]) == {"model.norm.weight"}  # a whole part of a name: not input_layernorm


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("last:3", "has 2 blocks, not 3; use at most last:2"),
        ("biases", "no biases; use last:n"),
        (["mlp", "nobodys"], r"no parameters named nobodys; it has lm_head.weight, .*layers\.N\.mlp\.down_proj"),
    ],
)
def test_what_the_base_has_not_is_the_jobs_error(parameters: str | list[str], message: str) -> None:
    with pytest.raises(JobError, match=message) as refused:
        attached(load_family("llama"), partial(parameters))
    assert refused.value.param == "tuning.partial.parameters"


@pytest.mark.parametrize("wrong", ["last", "last:0", "first:2", "last:-1", [], ["a b"], ["../x"], ["a..b"]])
def test_what_no_base_has_is_refused_at_once(wrong: object) -> None:
    with pytest.raises(ValueError, match="parameters"):
        PartialSettings.model_validate({"parameters": wrong})


def test_weights_of_other_blocks_do_not_fit(tmp_path: Path) -> None:
    base = load_family("llama")
    attached(base, partial("last:1")).save(tmp_path, base.public_source)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "parameters": "last:2"}))
    with pytest.raises(AdapterMismatch, match="different parameters"):
        open_tuning(tmp_path, base.model, "again")


def test_the_last_of_twelve_blocks_costs_itself_and_its_optimizer(tmp_path: Path) -> None:
    base = load_base(make_tiny_base(tmp_path / "base", num_layers=12), CPU)
    before = held()
    slot = seat(base, tuning=partial())
    slot.train_step()
    moving = sum(parameter.nbytes for parameter in slot._tuning.parameters().values())
    assert moving == sum(tensor.nbytes for name, tensor in base.model.named_parameters() if ".layers.11." in name)
    random = sum(tensor.nbytes for tensor in slot._random.state().values())  # every job has its own
    assert 3 * moving <= held() - before - random <= 1.05 * 3 * moving
    slot.leave()
    del slot
    assert held() - before < 1000


def held() -> int:
    """Bytes of all tensors in memory, each storage once."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if type(one) in (Tensor, nn.Parameter)]
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values())


def test_full_is_refused_with_the_bytes_where_it_does_not_fit(
    base: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 4 * sum(parameter.nbytes for parameter in base.model.parameters())
    monkeypatch.setattr(faults.psutil, "virtual_memory", lambda: SimpleNamespace(available=needed - 1))
    with pytest.raises(JobError, match=f"need {needed} bytes; the trainer has {needed - 1} left") as refused:
        seat(base, tuning=FULL)
    assert refused.value.code == "out_of_memory"
    monkeypatch.setattr(faults.psutil, "virtual_memory", lambda: SimpleNamespace(available=needed))
    seat(base, tuning=FULL).leave()


@pytest.mark.parametrize("spec", [FULL, partial()], ids=["full", "partial"])
def test_it_ends_in_the_same_bits_beside_a_lora_and_from_a_snapshot(
    base: LoadedBase, spec: dict[str, Any], tmp_path: Path
) -> None:
    def alone(name: str, tuning: dict[str, Any]) -> tuple[bytes, ...]:
        slot = seat(base, name, tuning)
        run(slot)
        bits = adapter(slot, tmp_path / f"{name} alone")
        slot.leave()
        return bits

    expected = {"own": alone("own", spec), "lora": alone("lora", LORA)}
    own, lora = seat(base, "own", spec), seat(base, "lora", LORA)
    for step in range(lora.total_steps):
        if step == 3:  # as after a kill
            own.snapshot().write(tmp_path / "snapshot")
            own.leave()
            own = seat(base, "own", spec)
            assert own.restore(tmp_path / "snapshot") == ""
        own.train_step()
        lora.train_step()
    assert adapter(own, tmp_path / "own") == expected["own"]
    assert adapter(lora, tmp_path / "lora") == expected["lora"]
    own.leave()
    lora.leave()


def test_rounding_is_measured_on_the_copy_as_on_the_base(tmp_path: Path) -> None:
    """A copy that has not been trained has no effect, under other rounding noise neither."""
    base = load_base(make_tiny_base(tmp_path / "base", dtype="bfloat16"), CPU)
    slot = seat(base, tuning=partial())
    row = slot._scoring.score(Candidate(list(range(10, 30))), EffectMeter())
    assert row.logprobs == row.base_logprobs
    assert row.nudged_effects == [0.0] * 19
    slot.leave()


def test_a_job_goes_on_from_a_tuned_model(base: LoadedBase, tmp_path: Path) -> None:
    parent = seat(base, tuning=partial(), learning_rate=1e-2)
    run(parent)
    parent.save_adapter(tmp_path / "parent")
    child = seat(base, "child", partial(), learning_rate=1e-2)
    child.continue_from(tmp_path / "parent")
    assert not child.changed
    assert {name: one.tolist() for name, one in child._tuning.parameters().items()} == {
        name: one.tolist() for name, one in parent._tuning.parameters().items()
    }
    child.train_step()
    assert child.changed
    child.leave()
    parent.leave()


def test_only_the_embedded_engine_serves_them_and_a_refusal_says_what_is_served() -> None:
    vllm = Base(id="b", source="s", context_tokens=64, serving=Serving(engine="vllm", tunings=frozenset({"lora"})))
    for settings in (FullSettings(), PartialSettings()):
        assert settings.name in served_by("embedded") and settings.name not in served_by("vllm")
        with pytest.raises(InvalidRequest, match=f"cannot serve the tuning '{settings.name}'; use one of: lora"):
            check_servable(vllm, settings)


@pytest.mark.parametrize("hidden_size", [576, 2000, 4096])
def test_the_default_rate_is_a_tenth_of_loras(hidden_size: int) -> None:
    size = BaseSize(hidden_size, num_layers=32)
    expected = LoraSettings.default_learning_rate(size) / 10
    assert FullSettings.default_learning_rate(size) == pytest.approx(expected)
    assert PartialSettings.default_learning_rate(size) == pytest.approx(expected)
