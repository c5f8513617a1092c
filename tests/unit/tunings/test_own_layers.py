"""Bottleneck adapters and LoReFT: their papers' formulas, their places in every family, their rows among others'."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedModel, T5Config, T5ForConditionalGeneration

from service.domain.errors import JobError
from service.recipes.catalogue import served_by
from service.recipes.tuning import tuning_of
from service.recipes.tunings.bottleneck import BottleneckSettings
from service.recipes.tunings.loreft import LoreftSettings
from tests.given.families import FAMILIES, FAMILY_VOCABULARY, make_family
from tests.given.slots import LORA, adapter, run, seat
from tests.given.tuned import tuned_logits
from workers.model.adapters import Adapter
from workers.model.generate import BatchRow, DecodingBatch
from workers.model.load import LoadedBase, weights_digest
from workers.model.sampling import Sampling
from workers.tunings import Tuning, create_tuning, open_tuning
from workers.tunings.base import private_copy
from workers.tunings.blocks import blocks, sublayers
from workers.tunings.loreft import orthonormal
from workers.tunings.sites import Site

IDS_BT = torch.randint(3, FAMILY_VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(5))
LENGTHS = [5, 12, 3]  # of the prompts; the last one is shorter than first + last
SPECS: dict[str, dict[str, Any]] = {
    "houlsby": {"type": "bottleneck", "bottleneck": {"placement": "houlsby", "size": 6, "non_linearity": "gelu"}},
    "pfeiffer": {"type": "bottleneck", "bottleneck": {"reduction": 4}},
    "loreft": {"type": "loreft", "loreft": {"r": 4, "first": 2, "last": 2}},
}
every_kind = pytest.mark.parametrize("kind", SPECS)


def make(family: str) -> PreTrainedModel:
    if family != "mixtral":
        return make_family(family)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MixtralConfig(vocab_size=FAMILY_VOCABULARY, num_key_value_heads=2, num_local_experts=4, **sizes)
    torch.manual_seed(0)
    return MixtralForCausalLM(config).eval().requires_grad_(False)


def attached(model: PreTrainedModel, kind: str, name: str = "one", noise: float = 0.0) -> Tuning:
    tuning = create_tuning(tuning_of(SPECS[kind]), model, name)
    torch.manual_seed(1)
    tuning.attach()
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(torch.randn(parameter.shape) * noise)
    return tuning


def logits(tuning: Tuning, ids_BT: Tensor = IDS_BT, lengths: list[int] = LENGTHS) -> Tensor:
    tuning.activate()
    try:
        return tuned_logits(tuning, ids_BT, torch.ones_like(ids_BT), lengths)
    finally:
        tuning.deactivate()


def loss_of(logits_BTV: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), IDS_BT[:, 1:].flatten())


@every_kind
@pytest.mark.parametrize("family", [*dict.fromkeys([*FAMILIES, "mixtral"])])
def test_it_begins_as_the_base_and_leaves_no_trace(family: str, kind: str, tmp_path: Path) -> None:
    model = make(family)
    digest, before = weights_digest(model), model(IDS_BT).logits
    modules = [(name, id(module), len(module._forward_hooks)) for name, module in model.named_modules()]
    tuning = attached(model, kind)
    assert tuning.memory_bytes() == sum(parameter.nbytes for parameter in tuning.parameters().values())
    assert torch.equal(logits(tuning), before)
    optimizer = torch.optim.AdamW(tuning.parameters().values(), lr=1e-2)
    began = {name: parameter.detach().clone() for name, parameter in tuning.parameters().items()}
    losses = []
    for _ in range(3):
        loss = loss_of(logits(tuning))
        losses.append(loss.item())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    assert all(not torch.equal(parameter, began[name]) for name, parameter in tuning.parameters().items())
    assert torch.equal(model(IDS_BT).logits, before)  # while it is not active
    tuned = logits(tuning)
    tuning.save(tmp_path, "base")
    tuning.detach()
    assert modules == [(name, id(module), len(module._forward_hooks)) for name, module in model.named_modules()]
    assert weights_digest(model) == digest
    again = open_tuning(tmp_path, model, "again")
    assert torch.equal(logits(again), tuned)
    again.detach()


def hooked(model: PreTrainedModel, changes: dict[str, Callable[[Tensor], Tensor]]) -> Tensor:
    """Logits of the base while each of these modules' outputs is changed."""

    def hook(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, object, Any], Any]:
        return lambda _, __, out: (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

    hooks = [model.get_submodule(path).register_forward_hook(hook(change)) for path, change in changes.items()]
    output: Tensor = model(IDS_BT).logits
    for one in hooks:
        one.remove()
    return output


def agree(tuning: Tuning, model: PreTrainedModel, oracle: Callable[[dict[str, Tensor]], Tensor]) -> None:
    """Loss and gradients to 1e-5 with the formula, which gets copies of the parameters."""
    copies = {name: one.detach().clone().requires_grad_() for name, one in tuning.parameters().items()}
    loss = loss_of(logits(tuning))
    loss.backward()  # type: ignore[no-untyped-call]
    tuning.deactivate()
    expected = loss_of(oracle(copies))
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for name, parameter in tuning.parameters().items():
        assert parameter.grad is not None and copies[name].grad is not None
        assert float(copies[name].grad.abs().max()) > 1e-6, name
        torch.testing.assert_close(parameter.grad, copies[name].grad, atol=1e-5, rtol=1e-4)
    tuning.detach()


@pytest.mark.parametrize("kind", ["houlsby", "pfeiffer"])
def test_bottleneck_is_the_papers_formula(kind: str) -> None:
    model = make("llama")
    tuning = attached(model, kind, noise=0.2)
    function = nn.functional.gelu if kind == "houlsby" else torch.relu

    def oracle(p: dict[str, Tensor]) -> Tensor:
        """h + W_up f(W_down h + b) + b' after whole attention and feed-forward modules."""

        def after(path: str) -> Callable[[Tensor], Tensor]:
            down, up = (
                (p[f"{path}.down.weight"], p[f"{path}.down.bias"]),
                (p[f"{path}.up.weight"], p[f"{path}.up.bias"]),
            )
            return lambda h: h + function(h @ down[0].T + down[1]) @ up[0].T + up[1]

        changes = {}
        for layer in range(2):
            changes[f"model.layers.{layer}.mlp"] = after(f"model.layers.{layer}.mlp.down_proj")
            if kind == "houlsby":
                changes[f"model.layers.{layer}.self_attn"] = after(f"model.layers.{layer}.self_attn.o_proj")
        return hooked(model, changes)

    assert len(tuning.parameters()) == (16 if kind == "houlsby" else 8)
    agree(tuning, model, oracle)


def gram_schmidt(rows_RH: Tensor) -> Tensor:
    """Orthonormal rows, by the method's own words: subtract what lies along the rows before, then make it one long."""
    done: list[Tensor] = []
    for row_H in rows_RH:
        for other_H in done:
            row_H = row_H - (row_H @ other_H) * other_H
        done.append(row_H / row_H.norm())
    return torch.stack(done)


def test_loreft_is_the_papers_formula_at_the_ends_of_each_prompt() -> None:
    model = make("llama")
    tuning = attached(model, "loreft", noise=0.2)
    edited_B = [{0, 1, 3, 4}, {0, 1, 10, 11}, {0, 1, 2}]
    mask_BT1 = torch.tensor([[[float(place in edited)] for place in range(12)] for edited in edited_B])

    def oracle(p: dict[str, Tensor]) -> Tensor:
        """h + R^T (W h + b - R h), row by row of a matrix product."""

        def after(path: str) -> Callable[[Tensor], Tensor]:
            r, w, b = gram_schmidt(p[f"{path}.rotation"]), p[f"{path}.source.weight"], p[f"{path}.source.bias"]
            return lambda h: h + mask_BT1 * ((h @ w.T + b - h @ r.T) @ r)

        return hooked(model, {path: after(path) for path in ("model.layers.0", "model.layers.1")})

    agree(tuning, model, oracle)


def test_the_edited_subspace_stays_orthonormal() -> None:
    rows_RH = torch.randn(8, 32, generator=torch.Generator().manual_seed(0)) * 3
    r_RH = orthonormal(rows_RH)
    torch.testing.assert_close(r_RH @ r_RH.T, torch.eye(8), atol=1e-6, rtol=0)
    torch.testing.assert_close(orthonormal(r_RH), r_RH, atol=1e-6, rtol=0)  # with no sign turned
    assert torch.equal(orthonormal(rows_RH), r_RH)


def test_only_chosen_layers_are_edited() -> None:
    model = make("llama")
    one = create_tuning(tuning_of({"type": "loreft", "loreft": {"layers": [1]}}), model, "one")
    one.attach()
    assert set(one.parameters()) == {f"model.layers.1.{name}" for name in ("rotation", "source.weight", "source.bias")}
    one.detach()


def test_rows_of_all_kinds_and_of_the_base_decode_together_as_alone(base: LoadedBase, tmp_path: Path) -> None:
    tunings: list[Tuning | None] = [None, create_tuning(tuning_of(LORA), base.model, "lora")]
    assert tunings[1] is not None
    tunings[1].attach()
    tunings += [attached(base.model, kind, kind, noise=0.3) for kind in SPECS]
    adapters = [tuning and Adapter(tuning) for tuning in tunings]
    prompts = [list(range(10 + 7 * place, 20 + 8 * place)) for place in range(len(adapters))]

    def decode(places: list[int]) -> list[Tensor]:
        """logits_NV of each row over eight tokens."""
        batch = DecodingBatch(base)
        for place in places:
            batch.join(batch.prefill([BatchRow(prompts[place], Sampling(temperature=0.0), adapters[place])]))
        seen = []
        for _ in range(8):
            batch.sample()
            batch.advance()
            seen.append(batch._logits_BV.clone())
        return list(torch.stack(seen, dim=1))

    everyone = list(range(len(adapters)))
    for place, together_NV in zip(everyone, decode(everyone), strict=True):
        torch.testing.assert_close(together_NV, decode([place])[0], atol=1e-4, rtol=1e-4)
    for tuning in tunings[1:]:
        assert tuning is not None
        tuning.detach()
    assert not any(isinstance(module, Site) or module._forward_hooks for module in base.model.modules())


@every_kind
def test_decoding_with_the_cache_is_a_full_pass(base: LoadedBase, kind: str) -> None:
    tuning = attached(base.model, kind, noise=0.3)
    prompt, num_tokens = list(range(20, 32)), 6
    batch = DecodingBatch(base)
    row = BatchRow(prompt, Sampling(temperature=0.0), Adapter(tuning))
    batch.join(batch.prefill([row]))
    for _ in range(num_tokens):
        batch.sample()
        batch.advance()
    whole_1TV = logits(tuning, torch.tensor([prompt + row.generated]), [len(prompt)])
    torch.testing.assert_close(batch._logits_BV[0], whole_1TV[0, -1], atol=1e-4, rtol=0)
    tuning.detach()


def test_a_private_copy_has_nothing_of_a_neighbour() -> None:
    model = make("llama")
    before = model(IDS_BT).logits
    neighbours = [attached(model, kind, kind, noise=0.3) for kind in SPECS]
    copied = private_copy(model, lambda name: "layers.1." in name)
    assert not any(isinstance(module, Site) or module._forward_hooks for module in copied.modules())
    assert torch.equal(copied(IDS_BT).logits, before)
    assert not torch.equal(logits(neighbours[-1]), before)  # its hooks are back
    for neighbour in neighbours:
        neighbour.detach()


@every_kind
def test_it_ends_in_the_same_bits_beside_others_and_from_a_snapshot(
    base: LoadedBase, kind: str, tmp_path: Path
) -> None:
    alone = seat(base, "own", SPECS[kind])
    run(alone)
    expected = adapter(alone, tmp_path / "alone")
    alone.leave()
    own, lora, other = seat(base, "own", SPECS[kind]), seat(base, "lora", LORA), seat(base, "other", SPECS["loreft"])
    for step in range(own.total_steps):
        if step == 3:  # as after a kill
            own.snapshot().write(tmp_path / "snapshot")
            own.leave()
            own = seat(base, "own", SPECS[kind])
            assert own.restore(tmp_path / "snapshot") == ""
        own.train_step()
        lora.train_step()
        other.train_step()
    assert adapter(own, tmp_path / "own") == expected
    for slot in (own, lora, other):
        slot.leave()


def test_both_sides_of_an_encoder_decoder_are_found() -> None:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "num_decoder_layers": 3}
    found = sublayers(T5ForConditionalGeneration(T5Config(vocab_size=FAMILY_VOCABULARY, **sizes)))
    assert [len(one.attentions) for one in found] == [1, 1, 2, 2, 2]  # a decoder's block also attends to the encoder
    assert [one.feed_forward.partition(".")[0] for one in found] == ["encoder"] * 2 + ["decoder"] * 3


def test_a_base_of_another_structure_is_refused_in_a_sentence() -> None:
    model = make("llama")
    model.config.num_hidden_layers = 7
    with pytest.raises(JobError, match="family 'llama': it has 0 lists of 7 blocks, not 1") as refused:
        blocks(model)
    assert refused.value.code == "unknown_structure"
    bare = make("llama")
    for block in blocks(bare).values():
        block.mlp = nn.Identity()
    with pytest.raises(JobError, match="its blocks have no feed-forward that ends in a linear layer"):
        attached(bare, "pfeiffer")


@pytest.mark.parametrize(
    ("settings", "param", "message"),
    [({"layers": [0, 2]}, "layers", "layers 0 to 1, not 2"), ({"r": 33}, "r", "32 numbers; a subspace of 33")],
)
def test_what_does_not_fit_the_base_is_the_jobs_error(settings: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(JobError, match=message) as refused:
        create_tuning(tuning_of({"type": "loreft", "loreft": settings}), make("llama"), "one").attach()
    assert refused.value.param == f"tuning.loreft.{param}"


def test_an_edit_of_no_position_is_refused() -> None:
    with pytest.raises(ValueError, match="both 0"):
        LoreftSettings(first=0, last=0)


def test_the_embedded_engine_serves_them_and_files_say_whose_they_are(tmp_path: Path) -> None:
    for settings in (BottleneckSettings(), LoreftSettings()):
        assert settings.name in served_by("embedded") and settings.name not in served_by("vllm")
    tuning = attached(make("llama"), "pfeiffer")
    tuning.save(tmp_path, "base")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["placement"], config["size"]) == ("LUTHIER_BOTTLENECK", "pfeiffer", "auto")
