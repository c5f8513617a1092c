"""One batch through the trainer's own passes and through PEFT's own modules: the same loss and the same gradients."""

import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftConfig, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from service.recipes.objectives.supervised import SupervisedSettings
from service.recipes.tuning import TuningSettings, tuning_of
from tests.given.compatibility import family
from tests.given.families import FAMILY_VOCABULARY, make_family
from tests.given.tiny_models import rows_of
from tests.given.tunings import KINDS, spec
from workers.data.batches import IGNORED, collate
from workers.objectives import create_objective
from workers.trainer.process.passes import Passes
from workers.tunings import Tuning, create_tuning
from workers.tunings.files import WEIGHTS
from workers.tunings.prompt import PROMPT

OF_PEFT = [kind for kind, one in KINDS.items() if not tuning_of(one).peft_type.startswith("LUTHIER_")]
PAIRS = [  # PiSSA has a test of its own; MiSS does not tune GPT-2's layers (docs/compatibility.md)
    (name, kind)
    for name in ("llama", "bloom", "gpt2")
    for kind in OF_PEFT
    if kind != "pissa" and (name, kind) != ("gpt2", "miss")
]
TOKENS = torch.randint(3, FAMILY_VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(2)).tolist()
ROWS = rows_of([TOKENS[0], TOKENS[1][:5], TOKENS[2][:7]])  # padded
CLOSE = 1e-5


def ours(name: str, tuning: Tuning, unpacked_because: str = "") -> tuple[float, dict[str, Tensor]]:
    """The mean loss and its gradients, as a job computes them; the tuning is detached."""
    passes = Passes(family(name), tuning, create_objective(SupervisedSettings()), unpacked_because)
    tuning.activate()
    measured, _ = passes.train(ROWS, range(3)).read()
    tuning.deactivate()
    gradients = {key: parameter.grad for key, parameter in tuning.parameters().items() if parameter.grad is not None}
    assert len(gradients) == len(tuning.parameters())
    tuning.detach()
    return measured.loss, gradients


def theirs(model: nn.Module) -> tuple[float, dict[str, Tensor]]:
    """The same of a model of PEFT's, by the names that the parameters have in its files."""
    batch = collate(ROWS, range(3), pad_id=0)
    logits_BTV = model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT).logits
    logits_BTV = logits_BTV[:, -batch.input_ids_BT.shape[1] :]
    loss = cross_entropy(logits_BTV.flatten(0, 1), batch.targets_BT.flatten(), ignore_index=IGNORED)
    loss.backward()  # type: ignore[no-untyped-call]
    trained = {key: one for key, one in model.named_parameters() if one.requires_grad and one.grad is not None}
    return float(loss.detach()), {_saved_name(key): one.grad for key, one in trained.items() if one.grad is not None}


def _saved_name(key: str) -> str:
    if key.startswith("prompt_encoder."):
        return PROMPT
    return re.sub(r"\.default(?=\.|$)", "", key).replace("_magnitude_vector.weight", "_magnitude_vector")


def _without_dropout(settings: TuningSettings) -> TuningSettings:
    return settings.model_copy(update={"dropout": 0.0}) if "dropout" in dict(settings) else settings


def compare(one: tuple[float, dict[str, Tensor]], other: tuple[float, dict[str, Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], abs=CLOSE)
    assert one[1].keys() == other[1].keys()
    for key, gradient in one[1].items():
        assert torch.allclose(gradient, other[1][key], rtol=CLOSE, atol=CLOSE), key


@pytest.mark.parametrize(("name", "kind"), PAIRS)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT's own call
def test_loss_and_gradient_are_those_of_pefts_modules(name: str, kind: str, tmp_path: Path) -> None:
    tuning = create_tuning(_without_dropout(tuning_of(KINDS[kind])), family(name).model, "mine")
    torch.manual_seed(3)
    tuning.attach()
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(torch.randn(parameter.shape) * 0.1)  # far from where B, b and D are zero
    tuning.save(tmp_path, "base")
    config = PeftConfig.from_pretrained(tmp_path)
    config.inference_mode, config.base_model_name_or_path = False, None
    model = get_peft_model(make_family(name), config).eval()
    set_peft_model_state_dict(model, load_file(tmp_path / WEIGHTS))
    compare(ours(name, tuning, tuning_of(KINDS[kind]).unpacked_because), theirs(model))


def test_pissa_without_touching_the_base_is_pissa() -> None:
    """PEFT's own replaces W by what is left of it; where its A and B begin, ours have the same loss and gradients."""
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=16, target_modules="all-linear",
                        init_lora_weights="pissa")  # fmt: skip
    model = get_peft_model(make_family("llama"), config).eval()
    tuning = create_tuning(tuning_of(spec("lora", r=4, alpha=16, init="pissa")), family("llama").model, "mine")
    tuning.attach()
    layers = {key: layer for key, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    with torch.no_grad():
        for key, layer in layers.items():
            a, b = (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
            mine_a = tuning.parameters()[f"{key}.lora_A.weight"]
            mine_b = tuning.parameters()[f"{key}.lora_B.weight"]
            torch.testing.assert_close(mine_b[:, :4] @ mine_a[:4], b @ a, rtol=0, atol=1e-4)  # the same subspace
            mine_a.copy_(torch.cat([a, a]))
            mine_b.copy_(torch.cat([b, -b], dim=1))
    loss, gradients = ours("llama", tuning)
    halves = {key: (one[:4] if "lora_A" in key else one[:, :4]) for key, one in gradients.items()}
    rest = {key: (one[4:] if "lora_A" in key else one[:, 4:]) for key, one in gradients.items()}
    assert not any(one.any() for one in rest.values())  # where it began does not move
    compare((loss, halves), theirs(model))
