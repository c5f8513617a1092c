"""What kind of base a folder holds: by its config, checked against the catalogue, with all of its weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedConfig,
    Qwen3Config,
    RobertaConfig,
    T5Config,
    ViTConfig,
)

from service.recipes.base_description import entry
from service.recipes.tasks import BaseKind
from tests.given.encoder_decoders import make_tiny_encoder_decoder
from tests.given.encoders import ENCODERS, make_tiny_encoder
from tests.given.tiny_models import VOCABULARY, make_tiny_base
from workers.model.describe import describe
from workers.model.kind import kind_of
from workers.model.load import BaseUnusable, load_base, load_or_explain
from workers.trainer.process.trial import try_base

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (LlamaConfig(), "causal"),
        (Qwen3Config(), "causal"),
        (GPT2Config(), "causal"),
        (BertConfig(), "encoder"),
        (BertConfig(architectures=["BertForMaskedLM"]), "encoder"),
        (BertConfig(architectures=["BertLMHeadModel"]), "causal"),
        (RobertaConfig(architectures=["RobertaModel"]), "encoder"),
        (DistilBertConfig(), "encoder"),
        (ModernBertConfig(), "encoder"),
        (T5Config(), "encoder-decoder"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_kind_follows_from_the_config(config: PreTrainedConfig, kind: BaseKind) -> None:
    assert kind_of(config) == kind


def test_a_model_of_pictures_is_no_base() -> None:
    with pytest.raises(ValueError, match="model type 'vit'"):
        kind_of(ViTConfig())


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoders_folder_is_described_tried_and_loaded_as_one(family: str, tmp_path: Path) -> None:
    base = make_tiny_encoder(tmp_path / "base", family)
    found = describe(base.source, CPU, tmp_path / "unused")
    assert (found.kind, found.chat_template) == ("encoder", False)
    assert entry(found, "mine").kind == "encoder"  # without a template: nobody chats with it
    said = [(finding.state, finding.message) for finding in try_base(base, CPU)]
    assert {state for state, _ in said} == {"ok"} and said[0][1].startswith("kind: encoder")
    assert any(message.startswith("lora: one step trains") for _, message in said)


def test_an_encoder_decoders_folder_is_described_tried_and_answers(tmp_path: Path) -> None:
    base = make_tiny_encoder_decoder(tmp_path / "base")
    found = describe(base.source, CPU, tmp_path / "unused")
    assert (found.kind, found.chat_template, entry(found, "mine").kind) == ("encoder-decoder", False, "encoder-decoder")
    said = [(finding.state, finding.message) for finding in try_base(base, CPU)]
    assert {state for state, _ in said} == {"ok"} and said[0][1].startswith("kind: encoder-decoder")
    assert any(message.startswith("lora: one step trains") for _, message in said)
    assert said[-1][1].startswith("generates: ")


def test_the_catalogue_must_say_the_kind_of_the_config(tmp_path: Path) -> None:
    encoder = make_tiny_encoder(tmp_path / "encoder").model_copy(update={"kind": "causal"})
    with pytest.raises(BaseUnusable, match='write kind = "encoder" in the catalogue, not "causal"'):
        load_or_explain(encoder, CPU)
    causal = make_tiny_base(tmp_path / "causal").model_copy(update={"kind": "encoder"})
    with pytest.raises(BaseUnusable, match='write kind = "causal"'):
        load_or_explain(causal, CPU)


def test_weights_that_are_missing_are_an_error_and_not_drawn_at_random(tmp_path: Path) -> None:
    base = make_tiny_encoder(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in sorted(weights) if "attention.self.query.weight" in name)
    save_file(
        {name: tensor for name, tensor in weights.items() if name != lost},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(BaseUnusable, match=r"lack 1 weights of BertModel, such as .*query\.weight"):
        load_or_explain(base, CPU)


def test_an_encoder_that_was_saved_with_its_pre_training_head_has_the_same_hash_in_every_process(
    tmp_path: Path,
) -> None:
    base = make_tiny_encoder(tmp_path)
    config = BertConfig.from_pretrained(tmp_path)
    BertForMaskedLM(config).save_pretrained(tmp_path)  # it has no pooler, which would be drawn at random
    first, second = load_base(base, CPU), load_base(base, CPU)
    assert first.hashes == second.hashes
    assert not any(name.startswith("pooler") for name in first.model.state_dict())


def test_bert_as_a_decoder_is_a_causal_base(tmp_path: Path) -> None:
    base = make_tiny_encoder(tmp_path)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        is_decoder=True,
    )
    BertLMHeadModel(config).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["BertLMHeadModel"]
    assert load_base(base.model_copy(update={"kind": "causal"}), CPU).kind == "causal"
