"""A tuned model merged into its base: any program that loads the folder computes what base and adapter do."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from service.recipes.base import Base
from service.recipes.tuning import TUNINGS
from tests.given.encoder_decoders import make_tiny_encoder_decoder, shifted
from tests.given.engines import CPU, save_adapter
from tests.given.tiny_models import make_tiny_base
from tests.given.tuned import active_logits
from workers.model.load import load_base
from workers.trainer.errands import MergeOrder, MergeResult
from workers.trainer.process.merge import merge
from workers.tunings import open_tuning
from workers.tunings.base import TUNINGS as TENSORS
from workers.tunings.base import MergeableTuning

IDS = torch.tensor([[5, 60, 7, 80, 9, 100, 11, 120]])
MERGEABLE: list[dict[str, Any]] = [
    {"type": "lora", "lora": {"r": 4, "alpha": 4}},
    {"type": "lora", "lora": {"r": 4, "alpha": 4, "use_rslora": True}},
    {"type": "lora", "lora": {"r": 4, "alpha": 4, "use_dora": True}},
    {"type": "lora", "lora": {"r": 4, "alpha": 4, "init": "pissa"}},
    {"type": "vera", "vera": {"r": 4}},
    {"type": "miss", "miss": {"r": 4}},
    {"type": "ia3"},
    {"type": "full"},
    {"type": "partial", "partial": {"parameters": "last:1"}},
]
UNMOVED = [
    spec
    for spec in MERGEABLE
    if not TUNINGS.find(spec["type"]).moves_the_base and spec.get("lora", {}).get("init") != "pissa"
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_tiny_base(tmp_path_factory.mktemp("merged") / "base")


def merged(base: Base, adapter: Path, folder: Path) -> MergeResult:
    folder.mkdir(exist_ok=True)
    shutil.copytree(adapter, folder / "adapter")
    return merge(MergeOrder(base=base, hashes=load_base(base, CPU).hashes, threads=1), folder)


@torch.no_grad()
@pytest.mark.parametrize("spec", MERGEABLE, ids=lambda spec: "-".join(map(str, spec.values())))
def test_transformers_computes_from_the_folder_what_base_and_tuning_do(
    base: Base, tmp_path: Path, spec: dict[str, Any]
) -> None:
    loaded = load_base(base, CPU)
    adapter = save_adapter(loaded, tmp_path / "made", 1, {spec["type"]: {}, **spec})
    result = merged(base, adapter, tmp_path / "work")
    assert result == MergeResult()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "work" / "merged", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "work" / "merged")
    tuning = open_tuning(adapter, loaded.model, "reference")
    expected = active_logits(tuning, IDS)
    tuning.detach()
    plain = loaded.model(input_ids=IDS).logits
    assert (expected - plain).abs().max() > 1e-2, "the adapter does something"
    torch.testing.assert_close(model(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)
    assert tokenizer.chat_template == loaded.tokenizer.chat_template
    assert {path.suffix for path in (tmp_path / "work" / "merged").iterdir()} <= {".json", ".safetensors", ".jinja"}


@torch.no_grad()
@pytest.mark.parametrize("spec", UNMOVED, ids=lambda spec: "-".join(map(str, spec.values())))
def test_of_a_base_in_4_bits_the_weights_that_compute_are_merged(
    base: Base, tmp_path: Path, spec: dict[str, Any]
) -> None:
    packed = base.model_copy(update={"quantization": "nf4"})
    loaded = load_base(packed, CPU)
    adapter = save_adapter(loaded, tmp_path / "made", 1, {spec["type"]: {}, **spec})
    assert merged(packed, adapter, tmp_path / "work") == MergeResult()
    model, found = AutoModelForCausalLM.from_pretrained(
        tmp_path / "work" / "merged", dtype=torch.float32, output_loading_info=True
    )
    assert not (found["missing_keys"] or found["unexpected_keys"] or found["mismatched_keys"])
    tuning = open_tuning(adapter, loaded.model, "reference")
    expected = active_logits(tuning, IDS)
    tuning.detach()
    assert (expected - loaded.model(input_ids=IDS).logits).abs().max() > 1e-2, "the adapter does something"
    torch.testing.assert_close(model(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_of_a_packed_base_is_not_merged_into_the_unpacked_one(base: Base, tmp_path: Path) -> None:
    packed = load_base(base.model_copy(update={"quantization": "nf4"}), CPU)
    adapter = save_adapter(packed, tmp_path / "made", 1)
    (tmp_path / "work").mkdir()
    shutil.copytree(adapter, tmp_path / "work" / "adapter")
    result = merge(MergeOrder(base=base, hashes=packed.hashes, threads=1), tmp_path / "work")
    assert result.refusal is not None and result.refusal.code == "not_mergeable"


@torch.no_grad()
def test_of_an_encoder_decoder_both_sides_are_merged(tmp_path: Path) -> None:
    base = make_tiny_encoder_decoder(tmp_path / "base")
    loaded = load_base(base, CPU)
    adapter = save_adapter(loaded, tmp_path / "made", 1, {"type": "lora", "lora": {"r": 4, "alpha": 4}})
    assert merged(base, adapter, tmp_path / "work") == MergeResult()
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "work" / "merged", dtype=torch.float32)
    tuning = open_tuning(adapter, loaded.model, "reference")
    expected = active_logits(tuning, IDS)
    tuning.detach()
    plain = loaded.model(input_ids=IDS, decoder_input_ids=shifted(IDS)).logits
    assert (expected - plain).abs().max() > 1e-2, "the adapter does something"
    found = model(input_ids=IDS, decoder_input_ids=shifted(IDS)).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_every_tuning_says_whether_it_merges_and_keeps_to_it(base: Base) -> None:
    model = load_base(base, CPU).model
    for recipe in TUNINGS:
        tuning = TENSORS.find(recipe)(model, "asked", recipe())
        assert isinstance(tuning, MergeableTuning) is recipe.merges, recipe.name
    assert {recipe.name for recipe in TUNINGS if recipe.merges} == {spec["type"] for spec in MERGEABLE}


def test_an_adapter_of_other_weights_is_refused(base: Base, tmp_path: Path) -> None:
    adapter = save_adapter(load_base(base, CPU), tmp_path / "made", 1)
    (tmp_path / "work").mkdir()
    shutil.copytree(adapter, tmp_path / "work" / "adapter")
    result = merge(MergeOrder(base=base, hashes={"weights": "another"}, threads=1), tmp_path / "work")
    assert result.refusal is not None
    assert (result.refusal.code, "other weights" in result.refusal.message) == ("not_mergeable", True)
    assert not (tmp_path / "work" / "merged").exists()
