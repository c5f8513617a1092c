"""Adapters that were trained elsewhere: what fits the base is scored, everything else is refused with a sentence."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from service.recipes.base import Base
from tests.given.hostile_adapters import CONFIG, REWRITTEN, WEIGHTS
from tests.given.peft_made import save_peft_lora
from tests.given.tiny_models import make_tiny_base
from workers.trainer.errands import ExamineOrder, ExamineResult
from workers.trainer.process import agreement
from workers.trainer.process.examine import examine


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Base, Path]]:
    """A base, and PEFT's own LoRA of it."""
    folder = tmp_path_factory.mktemp("made")
    base = make_tiny_base(folder / "base")
    save_peft_lora(base, folder / "adapter")
    yield base, folder / "adapter"


def looked_at(base: Base, adapter: Path, folder: Path) -> ExamineResult:
    shutil.copytree(adapter, folder / "sent", dirs_exist_ok=True)
    return examine(ExamineOrder(base=base, threads=1), folder)


def with_config(folder: Path, adapter: Path, **change: Any) -> Path:
    shutil.copytree(adapter, folder / "changed")
    path = folder / "changed" / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return folder / "changed"


def reason(result: ExamineResult) -> str:
    assert result.refusal is not None, "it was not refused"
    assert (result.refusal.code, result.refusal.param) == ("invalid_adapter", "file")
    assert "Traceback" not in result.refusal.message and len(result.refusal.message) < 600
    return result.refusal.message


def test_a_lora_of_peft_is_scored_and_kept_to_the_bit(made: tuple[Base, Path], tmp_path: Path) -> None:
    base, adapter = made
    found = looked_at(base, adapter, tmp_path).found
    assert found is not None
    effects = [effect for row in found.rows for effect in agreement.effects(row)]
    assert len(effects) > 100
    assert max(map(abs, effects)) > 0.01
    assert found.tuning["lora"]["r"] == 4
    sent, kept = load_file(adapter / WEIGHTS), load_file(tmp_path / "artifact" / WEIGHTS)
    assert sent.keys() == kept.keys()
    assert all(torch.equal(sent[name], kept[name]) for name in sent)


@pytest.mark.parametrize("kind", REWRITTEN)
def test_every_hostile_adapter_is_refused(made: tuple[Base, Path], tmp_path: Path, kind: str) -> None:
    base, adapter = made
    shutil.copytree(adapter, tmp_path / "sent")
    REWRITTEN[kind](tmp_path / "sent")
    assert reason(examine(ExamineOrder(base=base, threads=1), tmp_path)).startswith("The adapter cannot be imported: ")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"auto_map": {"a": "b"}}, "auto_map"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"layers_to_transform": [0]}, "layers_to_transform"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias"),
        ({"exclude_modules": "q_proj"}, "exclude_modules"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"task_type": "SEQ_CLS"}, "task_type"),
        ({"r": 512}, "rank 64"),
        ({"r": 8}, "shape"),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"lora_dropout": 2}, "lora_dropout"),
        ({"rank_pattern": {".*": 2}}, "rank_pattern"),
        ({"target_modules": ["q_proj", "nowhere"]}, "nowhere"),
        ({"target_modules": ".*"}, "target_modules"),
        ({"target_modules": ["q_proj"]}, "different parameters"),
        ({"peft_type": "PREFIX_TUNING"}, "LORA"),
    ],
)
def test_a_variant_that_would_be_served_as_something_else_is_refused_by_name(
    made: tuple[Base, Path], tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    base, adapter = made
    assert named in reason(looked_at(base, with_config(tmp_path, adapter, **change), tmp_path))


def test_tensors_of_another_type_or_without_effect_are_refused(made: tuple[Base, Path], tmp_path: Path) -> None:
    base, adapter = made
    for name, change, said in (
        ("integers", lambda tensor: tensor.to(torch.int32), "I32"),
        ("doubles", lambda tensor: tensor.double(), "F64"),
        ("zeros", torch.zeros_like, "changes nothing"),
    ):
        shutil.copytree(adapter, tmp_path / name / "sent")
        path = tmp_path / name / "sent" / WEIGHTS
        save_file({key: change(tensor) for key, tensor in load_file(path).items()}, path)
        assert said in reason(examine(ExamineOrder(base=base, threads=1), tmp_path / name))


def test_weights_that_are_no_safetensors_are_refused_before_the_base_is_loaded(
    made: tuple[Base, Path], tmp_path: Path
) -> None:
    base, adapter = made
    shutil.copytree(adapter, tmp_path / "sent")
    nowhere = base.model_copy(update={"source": str(tmp_path / "nowhere")})
    for content in (b"", b"\x80\x04\x95", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{}      "):
        (tmp_path / "sent" / WEIGHTS).write_bytes(content)
        if content.endswith(b"{}      "):  # a file of no tensors is one, and does not fit
            assert "parameters" in reason(examine(ExamineOrder(base=base, threads=1), tmp_path))
        else:
            assert "safetensors" in reason(examine(ExamineOrder(base=nowhere, threads=1), tmp_path))


def test_a_base_that_cannot_be_loaded_is_not_the_adapters_fault(made: tuple[Base, Path], tmp_path: Path) -> None:
    base, adapter = made
    nowhere = base.model_copy(update={"source": str(tmp_path / "nowhere")})
    result = looked_at(nowhere, adapter, tmp_path)
    assert result.refusal is None and result.found is None
    assert result.base_unusable is not None and "tiny" in result.base_unusable
