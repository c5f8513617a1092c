"""The LoRA that engines get instead of another tuning: what it computes, what it loses, and that it is a function."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from service.recipes.tuning import TUNINGS, tuning_of
from tests.given.families import ROWS, make_family
from tests.given.tuned import tuned_logits
from tests.given.tunings import KINDS, Spec, spec
from workers.model.load import weights_digest
from workers.tunings import Tuning, create_tuning, open_tuning
from workers.tunings.lora_form import best_product, lora_form
from workers.tunings.weight_changes import Change, Product, WeightChanging

EVERY_RANK = 64  # no layer of a tiny family has more inputs or outputs


def trained(model: torch.nn.Module, settings: Spec) -> Tuning:
    """The tuning, attached, each of its numbers moved a little."""
    tuning = create_tuning(tuning_of(settings), model, "trained")
    tuning.attach()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return tuning


def logits(tuning: Tuning) -> torch.Tensor:
    tuning.activate()
    try:
        with torch.no_grad():
            return tuned_logits(tuning, ROWS, torch.ones_like(ROWS), [ROWS.shape[1]] * len(ROWS))
    finally:
        tuning.deactivate()


def save(tuning: Tuning, model: PreTrainedModel, rank: int, folder: Path) -> float:
    """Writes the LoRA's files; returns the share that it keeps."""
    assert isinstance(tuning, WeightChanging)
    form = lora_form(tuning, rank)
    folder.mkdir()
    form.save(model, folder, "base")
    return form.share


def served(tuning: Tuning, model: PreTrainedModel, rank: int, folder: Path) -> tuple[torch.Tensor, float]:
    """What an engine computes from the LoRA's files, and the share that it keeps."""
    share = save(tuning, model, rank, folder)
    loaded = open_tuning(folder, model, "engine")
    found = logits(loaded)
    loaded.detach()
    return found, share


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        *((family, kind) for family in ("llama", "qwen3", "mixtral", "bloom") for kind in ("vera", "miss")),
        ("gpt2", "vera"),
        ("gpt2", "rslora"),
        ("llama", "pissa"),
    ],
)
def test_a_product_is_served_exactly(family: str, kind: str, tmp_path: Path) -> None:
    model = make_family(family)
    before = weights_digest(model)
    with torch.no_grad():
        base = model(input_ids=ROWS).logits
    tuning = trained(model, KINDS[kind])
    wanted = logits(tuning)
    found, share = served(tuning, model, EVERY_RANK, tmp_path / "served")
    assert share == 1.0
    assert (wanted - base).abs().max() > 1e-3
    assert (wanted - found).abs().max() <= 1e-5
    tuning.detach()
    assert weights_digest(model) == before


@pytest.mark.parametrize("kind", ["dora", "ia3", "partial"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_difference_of_weights_is_served_as_far_as_its_rank_allows(family: str, kind: str, tmp_path: Path) -> None:
    """`partial`: a whole block, with norms (and GPT-2's biases), which are in no LoRA."""
    model = make_family(family)
    tuning = trained(model, KINDS[kind])
    wanted = logits(tuning)
    exact, share = served(tuning, model, EVERY_RANK, tmp_path / "all")
    assert share > 0.9
    shares, errors = [share], [float((wanted - exact).abs().max())]
    if kind == "partial":
        assert share < 1
    else:
        assert share == pytest.approx(1.0, abs=1e-9) and errors[0] <= 1e-5
    for rank in (8, 1):
        found, share = served(tuning, model, rank, tmp_path / str(rank))
        shares.append(share)
        errors.append(float((wanted - found).abs().max()))
    assert shares == sorted(shares, reverse=True) and shares[-1] < shares[0]
    assert errors == sorted(errors)


def test_the_lora_of_some_blocks_names_no_other(tmp_path: Path) -> None:
    model = make_family("llama")
    tuning = trained(model, spec("partial", parameters="last:1"))
    save(tuning, model, 4, tmp_path / "served")
    loaded = open_tuning(tmp_path / "served", model, "again")
    assert loaded.parameters() and all(".layers.1." in name for name in loaded.parameters())


def test_what_is_lost_is_what_the_best_approximation_loses() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((12, 20), (20, 12)):
        difference = torch.randn(shape, generator=generator)
        values = torch.linalg.svdvals(difference.double())
        product = Product(
            torch.randn((shape[0], 9), generator=generator), torch.randn((9, shape[1]), generator=generator)
        )
        of_product = torch.linalg.svdvals(product.b_OR.double() @ product.a_RI.double())
        for rank in (1, 5):
            for given, exact, singular in (
                (difference, difference, values),
                (product, product.b_OR @ product.a_RI, of_product),
            ):
                found, norm, kept = best_product(given, rank)
                assert found.a_RI.shape == (rank, shape[1]) and found.b_OR.shape == (shape[0], rank)
                lost = float((exact.double() - found.b_OR.double() @ found.a_RI.double()).square().sum())
                assert lost == pytest.approx(float(singular[rank:].square().sum()), rel=1e-5)
                assert norm == pytest.approx(float(singular.square().sum()), rel=1e-5)
                assert norm - kept == pytest.approx(lost, rel=1e-4)


@pytest.mark.parametrize("kind", ["vera", "partial"])
def test_the_same_tensors_give_the_same_bytes_and_cost_no_random_number(kind: str, tmp_path: Path) -> None:
    model = make_family("llama")
    tuning = trained(model, KINDS[kind])
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    save(tuning, model, 4, tmp_path / "one")
    save(tuning, model, 4, tmp_path / "two")
    assert torch.equal(torch.random.get_rng_state(), before)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_is_said_of_a_tuning_is_what_its_tensors_do() -> None:
    """No other place lists them: a new tuning is two files."""
    for recipe in TUNINGS:
        tuning = trained(make_family("llama"), KINDS[recipe.name])
        assert isinstance(tuning, WeightChanging) == (recipe.lora_form != "none"), recipe.name
        if isinstance(tuning, WeightChanging):
            changes = [change.difference for change in tuning.weight_changes() if isinstance(change, Change)]
            exact = all(isinstance(difference, Product) for difference in changes)
            assert changes and exact == (recipe.lora_form == "exact"), recipe.name
