"""A base in 4 bits: how small it is, that jobs and requests share it without changing it, and where it is refused."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from service.domain.errors import InvalidRequest
from service.recipes.base import Base
from service.recipes.tuning import TUNINGS, check_servable, tuning_of
from tests.given.compatibility import packed as packed_family
from tests.given.engines import CPU, calling, local_store, make_engine, publish
from tests.given.families import ROWS, make_family
from tests.given.slots import ADAPTER_FILES, seat
from tests.given.tiny_models import make_tiny_base
from tests.given.tuned import tuned_logits
from tests.given.tunings import ELSEWHERE, KINDS, spec
from workers.jobs.comparison import Verdict, compare
from workers.model import nf4
from workers.model.load import BaseUnusable, LoadedBase, load_base, load_or_explain
from workers.model.nf4 import Nf4Linear, num_parameters, quantise
from workers.trainer.process.slot import Slot
from workers.tunings import create_tuning

pytestmark = pytest.mark.slow

TUNABLE = [kind for kind in KINDS if kind != "pissa" and not TUNINGS.find(KINDS[kind]["type"]).moves_the_base]
RATES = {"prompt": 0.3, "prefix": 0.1, "vera": 0.1, "ia3": 0.1, "loreft": 0.05}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_tiny_base(tmp_path_factory.mktemp("base")).model_copy(update={"quantization": "nf4"})


@pytest.fixture(scope="module")
def base(packed: Base) -> LoadedBase:
    return load_base(packed, CPU)


def layers(model: nn.Module) -> list[Nf4Linear]:
    return [module for module in model.modules() if isinstance(module, Nf4Linear)]


def test_linear_layers_take_a_seventh_of_their_memory_and_the_hash_is_the_sources(
    packed: Base, base: LoadedBase
) -> None:
    plain = load_base(packed.model_copy(update={"quantization": None}), CPU)
    found = layers(base.model)
    assert len(found) == 14 and not layers(plain.model)
    stored = sum(tensor.numel() * tensor.element_size() for layer in found for tensor in layer.buffers())
    numbers = sum(layer.in_features * layer.out_features for layer in found)
    assert stored <= 0.16 * 4 * numbers
    assert sum(parameter.numel() for parameter in base.model.parameters()) == num_parameters(plain.model) - numbers
    assert num_parameters(base.model) == num_parameters(plain.model)
    assert base.hashes == plain.hashes | {"quantization": "nf4"} and base.revision == plain.revision
    assert base.quantization == "nf4" and plain.quantization is None
    ids_BT = torch.tensor([[70, 71, 72, 73, 74]])
    exact, rounded = plain.model(ids_BT).logits, base.model(ids_BT).logits
    assert 0 < float((exact - rounded).std() / exact.std()) < 0.5


@pytest.mark.parametrize("kind", TUNABLE)
def test_five_steps_lower_the_loss(base: LoadedBase, kind: str) -> None:
    before = [layer.packed.clone() for layer in layers(base.model)]
    slot = seat(base, tuning=KINDS[kind], learning_rate=RATES.get(kind, 1e-2), batch_size=10, n_epochs=6)
    if kind not in ELSEWHERE:
        assert not slot.has_effect()
    losses = [slot.train_step().metrics["train_loss"] for _ in range(6)]
    slot.leave()
    assert losses[5] < losses[0], losses
    assert all(torch.equal(old, layer.packed) for old, layer in zip(before, layers(base.model), strict=True))


@pytest.mark.parametrize("family", ["qwen3", "bloom", "gemma"])
def test_every_tuning_begins_where_the_packed_base_is_and_learns_through_it(family: str) -> None:
    found = packed_family(family)
    assert not isinstance(found, str)
    with torch.no_grad():
        base = found.model(input_ids=ROWS).logits
    for kind in TUNABLE:
        tuning = create_tuning(tuning_of(KINDS[kind]), found.model, "tried")
        tuning.attach()
        tuning.activate()
        logits = tuned_logits(tuning, ROWS, torch.ones_like(ROWS))
        logits.square().mean().backward()
        tuning.deactivate()
        assert kind in ELSEWHERE or (logits - base).abs().max() <= 1e-5, kind
        assert all(parameter.grad is not None for parameter in tuning.parameters().values()), kind
        tuning.detach()


def files(slot: Slot, folder: Path) -> list[bytes]:
    slot.save_adapter(folder)
    return [(folder / name).read_bytes() for name in ADAPTER_FILES]


def test_neighbours_and_a_broken_off_job_end_in_the_same_bytes(base: LoadedBase, tmp_path: Path) -> None:
    """A neighbour's passes without gradients are what repacks bitsandbytes' own layers."""
    alone = seat(base, tuning=KINDS["dora"])
    while not alone.finished:
        alone.train_step()
    expected = files(alone, tmp_path / "alone")
    alone.leave()
    slot, neighbour = seat(base, tuning=KINDS["dora"]), seat(base, "ftjob-2", KINDS["ia3"])
    for step in range(4):
        slot.train_step()
        neighbour.train_step()
        neighbour.agreement_rows()
        if step == 2:
            slot.snapshot().write(tmp_path / "snapshot")
    slot.leave()
    again = seat(base, tuning=KINDS["dora"])
    assert again.restore(tmp_path / "snapshot") == ""
    while not again.finished:
        again.train_step()
    assert files(again, tmp_path / "again") == expected
    for one in (again, neighbour):
        one.leave()


async def test_an_engine_serves_it_packed_too_and_refuses_what_was_trained_on_it_otherwise(
    packed: Base, base: LoadedBase, tmp_path: Path
) -> None:
    slot = seat(base)
    while not slot.finished:
        slot.train_step()
    rows = slot.agreement_rows()
    slot.save_adapter(tmp_path / "trained1")
    slot.leave()
    name = await publish(local_store(tmp_path / "objects"), packed, base, tmp_path / "trained1", "trained1")
    found: list[list[list[float]]] = []
    async with calling(make_engine(packed, load_base(packed, CPU), tmp_path)) as client:
        for model in (name, packed.id):
            body: dict[str, Any] = {"model": model, "prompt": [row.ids for row in rows], "max_tokens": 1, "echo": True}
            answer = await client.post("/v1/completions", json=body | {"temperature": 0, "logprobs": 1}, timeout=60)
            choices = answer.json()["choices"]
            found.append([choices[i]["logprobs"]["token_logprobs"][1 : len(row.ids)] for i, row in enumerate(rows)])
    compared = compare(rows, found[0], found[1], "float32")
    assert compared.verdict is Verdict.AGREES and compared.base_difference < 1e-5, compared
    plain = packed.model_copy(update={"quantization": None})
    async with calling(make_engine(plain, load_base(plain, CPU), tmp_path / "plain")) as client:
        (tmp_path / "plain" / "objects").symlink_to(tmp_path / "objects")
        answer = await client.post("/v1/completions", json={"model": name, "prompt": [70], "max_tokens": 1})
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "adapter_unusable"


def test_where_it_cannot_be_the_reason_is_said(packed: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    for family, share in (("gpt2", "0%"), ("mixtral", "11%")):
        with pytest.raises(ValueError, match=f"only {share} of the weights of .* are in linear layers"):
            quantise(make_family(family))
    with pytest.raises(BaseUnusable, match="computes on cpu and cuda, not on meta"):
        load_or_explain(packed, torch.device("meta"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    nf4.kernels.cache_clear()
    try:
        with pytest.raises(
            BaseUnusable, match=r"needs bitsandbytes, which is not installed: pip install luthier\[nf4\]"
        ):
            load_or_explain(packed, CPU)
    finally:
        nf4.kernels.cache_clear()


def test_what_moves_the_bases_own_weights_is_refused_at_creation(packed: Base) -> None:
    serving = packed.serving.model_copy(update={"tunings": frozenset(TUNINGS.names)})
    everything = packed.model_copy(update={"serving": serving})
    for settings, param in (
        (spec("full"), "tuning.type"),
        (spec("partial"), "tuning.type"),
        (KINDS["pissa"], "tuning.lora.init"),
    ):
        with pytest.raises(InvalidRequest, match=r"which 'tiny' has in 4 bits \(nf4\)") as refused:
            check_servable(everything, tuning_of(settings))
        assert refused.value.param == param
    for kind in TUNABLE:
        check_servable(everything, tuning_of(KINDS[kind]))
