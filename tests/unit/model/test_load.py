"""A base is loaded frozen, and its hashes say which one it is."""

import json
from pathlib import Path

import pytest
import torch

from tests.given.tiny_models import make_tiny_base
from workers.model.load import choose_device, environment, load_base, load_text, weights_digest

CPU = torch.device("cpu")


def test_a_folder_is_loaded_frozen_with_hashes_that_say_which_it_is(tmp_path: Path) -> None:
    first = load_base(make_tiny_base(tmp_path / "one"), CPU)
    same = load_base(make_tiny_base(tmp_path / "same"), CPU)
    other = load_base(make_tiny_base(tmp_path / "other", seed=1), CPU)
    assert not first.model.training
    assert not any(parameter.requires_grad for parameter in first.model.parameters())
    assert set(first.hashes) == {"weights", "tokenizer", "chat_template"}
    assert (first.hashes, first.revision) == (same.hashes, same.revision)
    assert first.revision != other.revision
    assert {name for name in first.hashes if first.hashes[name] != other.hashes[name]} == {"weights"}
    assert (first.public_source, first.pad_id) == ("one", 0)


def test_the_digest_sees_one_changed_bit(tmp_path: Path) -> None:
    base = load_base(make_tiny_base(tmp_path), CPU)
    base.model.lm_head.weight[3, 5] += 1e-6
    assert weights_digest(base.model) != base.hashes["weights"]


def test_the_dtype_of_the_catalogue_is_the_dtype_in_memory(tmp_path: Path) -> None:
    base = load_base(make_tiny_base(tmp_path, dtype="bfloat16"), CPU)
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.bfloat16}


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base").model_copy(update={"source": str(tmp_path)})
    with pytest.raises((OSError, ValueError)):
        load_base(base, CPU)


def test_the_tokenizer_comes_without_weights(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert load_text(base).tokenizer.decode(load_text(base).tokenizer.encode("spruce")) == "spruce"


@pytest.mark.parametrize(("named", "ends"), [(2, {2}), ([2, 5, 7], {2, 5, 7}), (None, set())])
def test_every_token_that_the_bases_settings_name_ends_an_answer(
    tmp_path: Path, named: int | list[int] | None, ends: set[int]
) -> None:
    base = make_tiny_base(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": named}))
    text = load_text(base)
    assert text.end_ids == ends
    assert {text.tokenizer.convert_ids_to_tokens(id) for id in ends if id in (2, 5)} <= text.end_tokens


def test_the_environment_names_what_decides_the_last_bit() -> None:
    found = environment(choose_device("cpu"))
    assert set(found) == {"processor", "instructions", "device", "threads", "torch", "transformers", "peft"}
    assert all(found.values())
