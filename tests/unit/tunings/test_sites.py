"""Several tunings side by side in the layers of one base, whatever its architecture."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, MissConfig, PeftConfig, VeraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from service.domain.errors import JobError
from service.recipes.tuning import tuning_of
from service.recipes.tunings.lora import LoraSettings
from tests.given.families import FAMILIES, FAMILY_VOCABULARY, make_family
from tests.given.tuned import tuned_logits
from workers.model.adapters import Adapter, rows_use
from workers.model.load import weights_digest
from workers.tunings import Tuning, create_tuning
from workers.tunings.peft_layers import PeftLayers

pytestmark = pytest.mark.slow

LORA = {"type": "lora", "lora": {"r": 4, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"}}
DORA = {"type": "lora", "lora": LORA["lora"] | {"use_dora": True}}
IA3 = {"type": "ia3", "ia3": {}}
NARROW = {"type": "lora", "lora": {"r": 2, "alpha": 3, "dropout": 0.0, "target_modules": "all-linear"}}
VERA = {"type": "vera", "vera": {"r": 8}}
MISS = {"type": "miss", "miss": {"r": 8}}
PISSA = {"type": "lora", "lora": LORA["lora"] | {"init": "pissa"}}
ROWS = torch.randint(3, FAMILY_VOCABULARY, (8, 11), generator=torch.Generator().manual_seed(0))
every_family = pytest.mark.parametrize("family", FAMILIES)
every_kind = pytest.mark.parametrize("spec", [LORA, DORA, IA3, VERA, MISS], ids=["lora", "dora", "ia3", "vera", "miss"])


def attach(model: PreTrainedModel, spec: dict[str, Any], seed: int) -> Tuning:
    """Attached, and far from where it begins."""
    tuning = create_tuning(tuning_of(spec), model, f"seed_{seed}")
    torch.manual_seed(seed)
    tuning.attach()
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return tuning


@torch.no_grad()
def logits(model: PreTrainedModel, tuning: Tuning | None = None) -> Tensor:
    if tuning is None:
        plain: Tensor = model(input_ids=ROWS).logits
        return plain
    tuning.activate()
    tuned = tuned_logits(tuning, ROWS, torch.ones_like(ROWS))
    tuning.deactivate()
    return tuned


def modules(model: nn.Module) -> list[tuple[str, int, int]]:
    """Every module by name and identity, with the number of its hooks."""
    return [
        (name, id(module), len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks))
        for name, module in model.named_modules()
    ]


@every_family
def test_the_base_keeps_names_and_weights_and_gets_its_modules_back(family: str) -> None:
    model = make_family(family)
    before, digest, own, alone = modules(model), weights_digest(model), set(vars(model)), logits(model)
    tunings = [attach(model, spec, seed) for seed, spec in enumerate((LORA, IA3, NARROW, DORA))]
    assert modules(model) != before
    assert weights_digest(model) == digest  # its names, too: a site shows the original's parameters as its own
    assert torch.equal(logits(model), alone)
    for tuning in tunings:
        tuning.detach()
    assert modules(model) == before
    assert weights_digest(model) == digest
    assert set(vars(model)) == own
    assert torch.equal(logits(model), alone)


@every_family
def test_rows_of_a_batch_choose_their_adapters_exactly(family: str) -> None:
    model = make_family(family)
    alone = [logits(model)]
    specs = (LORA, NARROW, IA3, DORA, VERA, PISSA, LORA if family == "gpt2" else MISS)  # MiSS has no Conv1D
    tunings = [None, *(attach(model, spec, seed) for seed, spec in enumerate(specs))]
    alone += [logits(model, tuning) for tuning in tunings[1:]]
    chosen = [1, 0, 2, 3, 4, 5, 6, 7]
    adapters = [None if tuning is None else Adapter(tuning) for tuning in tunings]
    with torch.no_grad(), rows_use([adapters[one] for one in chosen], model.device):
        mixed = model(input_ids=ROWS).logits
    for row, one in enumerate(chosen):
        assert torch.equal(mixed[row], alone[one][row])
    assert not any(torch.equal(alone[0], other) for other in alone[1:])
    assert torch.equal(logits(model), alone[0])  # no row's adapter is left behind


@every_kind
@every_family
def test_engines_compute_a_layer_of_peft_to_the_same_bits(family: str, spec: dict[str, Any]) -> None:
    """Where nothing is trained a site does without PEFT's own way through the layer, where the method can."""
    if spec is MISS and family == "gpt2":
        return  # `test_compatibility` has the reason
    model = make_family(family)
    tuning = attach(model, spec, 1)
    through_peft: list[None] = []
    for layer in tuning.layers if isinstance(tuning, PeftLayers) else ():
        layer.register_forward_pre_hook(lambda *_: through_peft.append(None))
    expected, calls = logits(model, tuning), len(through_peft)
    assert calls > 0, "guard: a trainer computes through PEFT's layers"
    with torch.inference_mode():
        assert torch.equal(logits(model, tuning), expected)
    assert len(through_peft) - calls < calls or spec is DORA, "guard: PEFT's layers are not called"


@every_kind
@every_family
def test_a_file_has_the_names_and_numbers_that_peft_gives_whoever_is_attached(
    family: str, spec: dict[str, Any], tmp_path: Path
) -> None:
    if spec is MISS and family == "gpt2":
        return  # `test_compatibility` has the reason
    model = make_family(family)
    neighbours = [attach(model, NARROW, 1), attach(model, IA3, 2)]
    tuning = create_tuning(tuning_of(spec), model, "mine")
    torch.manual_seed(7)
    tuning.attach()
    tuning.save(tmp_path, "base")
    for one in (*neighbours, tuning):
        one.detach()
    gpt2 = family == "gpt2"
    # PEFT's "all-linear" means Mixtral's experts, too, which are one tensor and no linear layers
    linear = ["q_proj", "k_proj", "v_proj", "o_proj"] if family == "mixtral" else "all-linear"
    config: PeftConfig = IA3Config(task_type="CAUSAL_LM", fan_in_fan_out=gpt2)
    if spec is VERA:
        config = VeraConfig(task_type="CAUSAL_LM", r=8, target_modules=linear, fan_in_fan_out=gpt2)
    elif spec is MISS:
        config = MissConfig(task_type="CAUSAL_LM", r=8, target_modules=linear)
    elif spec is not IA3:
        config = LoraConfig(
            task_type="CAUSAL_LM", r=4, lora_alpha=16, target_modules=linear, use_dora=spec is DORA,
            fan_in_fan_out=gpt2,
        )  # fmt: skip
    torch.manual_seed(7)
    expected = get_peft_model_state_dict(get_peft_model(make_family(family), config))
    ours = load_file(tmp_path / "adapter_model.safetensors")
    assert sorted(ours) == sorted(expected)
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


@every_kind
@every_family
def test_its_memory_is_known_before_it_is_attached(family: str, spec: dict[str, Any], tmp_path: Path) -> None:
    if spec is MISS and family == "gpt2":
        return
    model = make_family(family)
    counted = create_tuning(tuning_of(spec), model, "counted").memory_bytes()
    tuning = attach(model, spec, 1)
    tuning.save(tmp_path, "base")  # VeRA's projections are saved, and none of its parameters
    assert counted == sum(tensor.nbytes for tensor in load_file(tmp_path / "adapter_model.safetensors").values())


def test_what_peft_refuses_leaves_no_trace() -> None:
    model = make_family("llama")
    neighbour = attach(model, LORA, 1)
    before, expected = modules(model), logits(model, neighbour)
    impossible = create_tuning(LoraSettings.model_construct(r=0), model, "impossible")
    with pytest.raises(ValueError, match="positive"):
        impossible.attach()
    assert modules(model) == before
    assert torch.equal(logits(model, neighbour), expected)


def test_a_layer_that_sees_no_rows_refuses_to_mix_them() -> None:
    model = make_family("llama")
    adapter = Adapter(attach(model, LORA, 1))
    with torch.no_grad(), rows_use([adapter, None], model.device), pytest.raises(ValueError, match="row by row"):
        model(input_ids=ROWS)  # six rows where two are announced


@pytest.mark.parametrize(
    ("settings", "param", "message"),
    [
        ({"target_modules": ["k_proj", "c_attn"]}, "target_modules", "no c_attn; choose from: down_proj"),
        ({"feedforward_modules": ["up_proj"]}, "feedforward_modules", "target_modules: up_proj"),
    ],
)
def test_modules_that_ia3_cannot_have_are_the_jobs_error(settings: dict[str, Any], param: str, message: str) -> None:
    model = make_family("llama")
    with pytest.raises(JobError, match=message) as refused:
        create_tuning(tuning_of({"type": "ia3", "ia3": settings}), model, "one").attach()
    assert refused.value.param == f"tuning.ia3.{param}"
