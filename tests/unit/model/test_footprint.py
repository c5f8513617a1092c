"""What a check says of memory without loading the base: the numbers of the loaded one."""

from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from service.domain.errors import JobError
from service.recipes.tuning import tuning_of
from tests.given.compatibility import family
from tests.given.families import FAMILIES, ROWS
from tests.given.tiny_models import make_tiny_base
from tests.given.tunings import KINDS
from workers.model import nf4
from workers.model.footprint import footprint, loaded_footprint, token_bytes
from workers.model.kind import empty_model, load_model
from workers.tunings import create_tuning

RUNS_THE_BASE = ("bottleneck", "prefix")  # to find out shapes


def test_weights_take_what_they_take_once_they_are_loaded(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path, dtype="bfloat16")
    model = load_model(base.kind, base.source, None, {"dtype": torch.bfloat16})
    loaded = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert footprint(base).weights_bytes == loaded
    assert loaded_footprint(model).weights_bytes == loaded + sum(buffer.nbytes for buffer in model.buffers())
    packed = footprint(base.model_copy(update={"quantization": nf4.NAME})).weights_bytes
    nf4.quantise(model)
    layers = [module for module in model.modules() if isinstance(module, nf4.Nf4Linear)]
    inside = sum(layer.packed.nbytes + layer.scales.nbytes for layer in layers)
    assert packed == inside + sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert layers and packed < loaded


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tuning_is_as_large_on_a_base_without_numbers(name: str) -> None:
    loaded = family(name).model
    attention = loaded.config._attn_implementation
    empty = empty_model("causal", loaded.config, torch.float32).requires_grad_(False)
    assert loaded.config._attn_implementation == attention
    found = {}
    for kind, settings in KINDS.items():
        if name == "mixtral" and kind in RUNS_THE_BASE:
            continue  # experts are chosen by numbers: the check says that the memory is unknown
        sizes = []
        for model in (loaded, empty):
            try:
                sizes.append(str(create_tuning(tuning_of(settings), model, "one").memory_bytes()))
            except JobError as refused:
                sizes.append(refused.message)
        found[kind] = sizes
    assert {kind: sizes for kind, sizes in found.items() if sizes[0] != sizes[1]} == {}
    assert int(found["lora"][0]) > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_activations_are_estimated_within_a_factor_of_two_and_a_half(name: str) -> None:
    model = family(name).model
    kept: dict[int, torch.Tensor] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in [*model.parameters(), *model.buffers()]}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # which stays, so that no address is used again
        return tensor

    model.requires_grad_(True)
    try:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            model.base_model(input_ids=ROWS, use_cache=False)
    finally:
        model.requires_grad_(False)
    counted = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    ratio = ROWS.numel() * token_bytes(model) / counted
    assert 0.4 < ratio < 2.5
