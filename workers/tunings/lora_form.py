"""The LoRA that engines serve instead of a trained tuning: W' - W = B A, exactly or as far as its rank allows.

A function of the trained tensors alone, so the same ones give the same bytes. The trainer makes it beside every adapter
that it saves; an engine loads it like any other LoRA. Shapes: O outputs, I inputs, R rank.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from service.recipes.tunings.lora import LoraSettings
from workers.tunings.base import take_over
from workers.tunings.lora import LoraTuning
from workers.tunings.peft_layers import linear_layers
from workers.tunings.weight_changes import Difference, Product, WeightChanging

SAVED = "base_model.model."  # what PEFT puts before a layer's path in an adapter's file


@dataclass(frozen=True)
class LoraForm:
    """B and A of every layer, all of rank `rank`; `share` of the squared norm of everything that the tuning changes."""

    rank: int
    share: float
    products: Mapping[str, Product]

    def save(self, model: PreTrainedModel, folder: Path, base_source: str) -> None:
        """Writes it as an ordinary LoRA. Draws no random numbers that others would miss."""
        targets = _targets(list(linear_layers(model)), self.products)
        settings = LoraSettings.model_construct(r=self.rank, alpha=float(self.rank), target_modules=targets)
        lora = LoraTuning(model, "served_form", settings)
        with own_random_numbers(model):
            lora.attach()
        try:
            take_over(lora.parameters(), _named(self.products))
            lora.save(folder, base_source)
        finally:
            lora.detach()


@torch.no_grad()
def lora_form(tuning: WeightChanging, rank: int) -> LoraForm:
    """The best LoRA of at most that rank."""
    products: dict[str, Product] = {}
    total = kept = 0.0
    for change in tuning.weight_changes():
        if change.path is None:
            assert isinstance(change.difference, Tensor), "products are of layers"
            total += _squared_norm(change.difference)
            continue
        product, norm, norm_kept = best_product(change.difference, rank)
        products[change.path] = product
        total, kept = total + norm, kept + norm_kept
    rank = max(product.a_RI.shape[0] for product in products.values())
    share = kept / total if total > 0 else 1.0
    return LoraForm(rank, share, {path: _filled(product, rank) for path, product in products.items()})


def best_product(difference: Difference, rank: int) -> tuple[Product, float, float]:
    """The closest product of at most that rank, the squared norm of the difference, and that of the product.

    Eckart and Young, 1936 (Psychometrika 1, 211): with the singular values s_1 >= s_2 >= ... of the difference, the
    closest matrix of rank R is U_R S_R V_R^T, and its squared error is the sum of the s_i^2 behind the R-th.
    """
    if isinstance(difference, Product):
        if difference.a_RI.shape[0] <= rank:
            norm = _squared_norm_of(difference)
            return difference, norm, norm
        return _truncated_product(difference, rank)
    return _truncated(difference, rank)


@contextmanager
def own_random_numbers(model: PreTrainedModel) -> Iterator[None]:
    """Within, what is drawn is missing nowhere else: a job trains the same with and without another form."""
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        yield


def _truncated(difference_OI: Tensor, rank: int) -> tuple[Product, float, float]:
    """From the eigenvectors of the smaller of D D^T = U S^2 U^T and D^T D = V S^2 V^T, in float64."""
    exact_OI = difference_OI.double()
    wide = exact_OI.shape[0] <= exact_OI.shape[1]
    squares, vectors = torch.linalg.eigh(exact_OI @ exact_OI.T if wide else exact_OI.T @ exact_OI)  # ascending
    first = vectors[:, -rank:].flip(1)
    # U_R S_R V_R^T = U_R (U_R^T D) = (D V_R) V_R^T
    b_OR, a_RI = (first, first.T @ exact_OI) if wide else (exact_OI @ first, first.T)
    squares = squares.clamp(min=0)
    return Product(b_OR.float(), a_RI.float()), float(squares.sum()), float(squares[-rank:].sum())


def _truncated_product(product: Product, rank: int) -> tuple[Product, float, float]:
    """From the singular values of a matrix that is as small as the product's own rank."""
    left_OR, upper_RR = torch.linalg.qr(product.b_OR.double())
    right_IR, lower_RR = torch.linalg.qr(product.a_RI.double().T)
    # B A = Q_b (R_b R_a^T) Q_a^T = (Q_b U) S (V^T Q_a^T)
    u_RR, s_R, vt_RR = torch.linalg.svd(upper_RR @ lower_RR.T, full_matrices=False)
    b_OR = left_OR @ u_RR[:, :rank] * s_R[:rank]
    a_RI = vt_RR[:rank] @ right_IR.T
    squares = s_R.square()
    return Product(b_OR.float(), a_RI.float()), float(squares.sum()), float(squares[:rank].sum())


def _squared_norm(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())


def _squared_norm_of(product: Product) -> float:
    """|B A|^2 = trace((B^T B) (A A^T))."""
    b_OR, a_RI = product.b_OR.double(), product.a_RI.double()
    return float(((b_OR.T @ b_OR) * (a_RI @ a_RI.T)).sum())


def _filled(product: Product, rank: int) -> Product:
    """The same product with zeros up to `rank`: all layers of the file have one rank."""
    missing = rank - product.a_RI.shape[0]
    return Product(F.pad(product.b_OR, (0, missing)), F.pad(product.a_RI, (0, 0, 0, missing)))


def _named(products: Mapping[str, Product]) -> dict[str, Tensor]:
    """By PEFT's names."""
    found = {}
    for path, product in products.items():
        found[f"{SAVED}{path}.lora_A.weight"] = product.a_RI
        found[f"{SAVED}{path}.lora_B.weight"] = product.b_OR
    return found


def _targets(layers: Collection[str], chosen: Collection[str]) -> list[str]:
    """PEFT's target modules for the chosen layers: the last part of their names where all of that name are chosen."""
    by_name = defaultdict(set)
    for path in layers:
        by_name[path.rpartition(".")[2]].add(path)
    found: list[str] = []
    for name, paths in by_name.items():
        mine = paths & set(chosen)
        found += [name] if mine == paths else mine
    return sorted(found)
