"""Packed rows: the losses and gradients of rows that go through the base alone, and nothing computed for padding."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from service.recipes.objective import ObjectiveSettings
from service.recipes.objectives.classification import ClassificationSettings
from service.recipes.objectives.dpo import DpoSettings
from service.recipes.objectives.embedding import EmbeddingSettings
from service.recipes.objectives.kto import KtoSettings
from service.recipes.objectives.orpo import OrpoSettings
from service.recipes.objectives.reward_model import RewardModelSettings
from service.recipes.objectives.simpo import SimpoSettings
from service.recipes.objectives.supervised import SupervisedSettings
from service.recipes.objectives.text import TextSettings
from service.recipes.tuning import TUNINGS, TuningSettings, tuning_of
from tests.given.compatibility import family
from tests.given.families import FAMILIES, FAMILY_VOCABULARY, load_family
from workers.data.examples import packed
from workers.data.tokenized import DatasetBuilder, TokenizedDataset
from workers.model import output_layer
from workers.model.load import LoadedBase
from workers.model.output_layer import losses_and_right
from workers.objectives import create_objective
from workers.trainer.process.passes import Passes
from workers.tunings import create_tuning

LOSS, GRADIENT = 4e-6, 1e-5  # differences that rounding may make; a gradient's, of the largest number in it
UNPACKED = {"bloom"}
LORA = {"type": "lora", "lora": {"r": 4, "target_modules": "all-linear"}}
LENGTHS = (7, 19, 7, 12, 30, 3, 2, 12)


def rows(*, pairs: bool = False, weighted: bool = False) -> TokenizedDataset:
    """Rows of unlike lengths with labels, of which the second half is trained."""
    numbers = np.random.RandomState(5)
    builder = DatasetBuilder()
    for row, length in enumerate(LENGTHS):
        ids = numbers.randint(3, FAMILY_VOCABULARY, length).tolist()
        trained = [int(2 * place + 1 >= length) for place in range(length)]
        weights = [0.25 + 0.5 * (place % 3) if flag else 0.0 for place, flag in enumerate(trained)]
        builder.add(ids, trained, label=row // 2 % 2, token_weights=weights if weighted else None)
    return builder.build(rows_per_example=2 if pairs else 1)


class Trained:
    """One job's step on a base: its loss, its metrics and its gradient, packed or padded as by an earlier plan."""

    def __init__(self, base: LoadedBase, tuning: TuningSettings, objective: ObjectiveSettings) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.tuning = create_tuning(tuning, base.model, "tried")
            self.tuning.attach()
            self.objective = create_objective(objective)
            self._base = base
            with torch.no_grad():
                for parameter in self.tuning.parameters().values():  # else B is zero, and A has no gradient
                    parameter.add_(0.02 * torch.randn_like(parameter))
        self.passes = Passes(base, self.tuning, self.objective, tuning.unpacked_because)

    def step(
        self, data: TokenizedDataset, plan: int, reference_N: Tensor | None = None
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        if plan < 3:
            self.passes.plan, self.passes.packed = 2, False
        parameters = {**self.tuning.parameters(), **self.objective.parameters()}
        for parameter in parameters.values():
            parameter.grad = None
        self.tuning.activate()
        measured, _ = self.passes.train(data, range(data.num_examples), reference_N).read()
        self.tuning.deactivate()
        gradients = {name: one.grad.clone() for name, one in parameters.items() if one.grad is not None}
        assert gradients
        return measured.named("train"), gradients


def compare(base: LoadedBase, tuning: TuningSettings, objective: ObjectiveSettings, data: TokenizedDataset) -> bool:
    """Whether it was packed; the step is the same either way."""
    one = Trained(base, tuning, objective)
    one.objective.prepare(data, "causal")
    one.objective.attach(base.model.config.hidden_size, base.device)
    with torch.no_grad():
        for parameter in one.objective.parameters().values():  # a head begins at zero, and nothing behind it learns
            parameter.add_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    reference_N = torch.linspace(-90, -40, len(data), dtype=torch.float64) if one.objective.needs_reference else None
    was_packed = one.passes.packed
    try:
        metrics, gradients = one.step(data, 3, reference_N)
        expected, expected_gradients = one.step(data, 2, reference_N)
    finally:
        one.tuning.detach()
    assert metrics == pytest.approx(expected, rel=LOSS, abs=LOSS)
    assert gradients.keys() == expected_gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected_gradients.values())
    assert largest > 0 and math.isfinite(largest)
    for name, gradient in gradients.items():
        assert float((gradient - expected_gradients[name]).abs().max()) <= GRADIENT * largest, name
    return was_packed


def test_trying_whether_rows_can_be_packed_leaves_no_gradient() -> None:
    """As at the first job of a base, where a parameter of the base or of a tuning may ask for gradients."""
    base = load_family("llama")
    base.model.requires_grad_(True)
    assert base.unpacked_because == ""
    assert all(parameter.grad is None for parameter in base.model.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_packed_step_is_the_padded_one_in_every_family(name: str) -> None:
    assert compare(family(name), tuning_of(LORA), SupervisedSettings(), rows()) is (name not in UNPACKED)
    assert bool(family(name).unpacked_because) is (name in UNPACKED)


@pytest.mark.parametrize("name", sorted(set(TUNINGS.names) - {"lora"}))
def test_a_packed_step_is_the_padded_one_with_every_tuning(name: str) -> None:
    settings = tuning_of({"type": name, name: {}})
    assert compare(family("llama"), settings, SupervisedSettings(), rows()) is not bool(settings.unpacked_because)


@pytest.mark.parametrize(
    "objective",
    [DpoSettings(beta=0.1), OrpoSettings(), SimpoSettings(), KtoSettings(beta=0.1), RewardModelSettings(),
     ClassificationSettings(), ClassificationSettings(pooling="mean"), EmbeddingSettings()],
    ids=lambda one: one.name,
)  # fmt: skip
def test_a_packed_step_is_the_padded_one_with_every_objective(objective: ObjectiveSettings) -> None:
    data = rows(pairs=not isinstance(objective, ClassificationSettings))
    if isinstance(objective, ClassificationSettings):
        data = replace(data, labels=("a", "b"))
    assert compare(family("qwen3"), tuning_of(LORA), objective, data)


def test_a_packed_step_is_the_padded_one_with_weights_and_with_packed_examples() -> None:
    assert compare(family("llama"), tuning_of(LORA), SupervisedSettings(), rows(weighted=True))
    assert compare(family("llama"), tuning_of(LORA), TextSettings(), packed(rows(), 32))
    prompt = tuning_of({"type": "prompt", "prompt": {"num_virtual_tokens": 3}})
    assert compare(family("gpt2"), prompt, SupervisedSettings(), rows())


class Counted(TorchDispatchMode):
    """How many positions go through the base's first layer, and how many through its output layer, forward."""

    def __init__(self, base: LoadedBase) -> None:
        super().__init__()
        self.tokens = self.logits = 0
        layer: nn.Module = base.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        assert isinstance(layer, nn.Linear)
        self._shape = (layer.in_features, layer.out_features)
        self._hook = base.model.get_input_embeddings().register_forward_hook(self._embedded)

    def _embedded(self, module: nn.Module, inputs: Any, states_BTH: Tensor) -> None:
        self.tokens += states_BTH.shape[0] * states_BTH.shape[1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default) and tuple(args[-1].shape) == self._shape:
            self.logits += len(args[-2])
        return func(*args, **(kwargs or {}))

    def __exit__(self, *error: Any) -> None:
        self._hook.remove()
        super().__exit__(*error)


def test_guard_nothing_is_computed_for_padding_or_for_tokens_that_are_not_trained() -> None:
    """Counted: tokens through the base and rows through the output layer, for each token and each trained token."""
    data, base = rows(), family("llama")
    trained = sum(int(data.row(row)[1][1:].sum()) for row in range(len(data)))
    one = Trained(base, tuning_of(LORA), SupervisedSettings())
    try:
        with Counted(base) as now:
            one.step(data, 3)
        with Counted(base) as before:
            one.step(data, 2)
    finally:
        one.tuning.detach()
    assert (now.tokens, now.logits) == (sum(LENGTHS), trained)
    assert before.tokens > 1.3 * now.tokens and before.logits > 2 * now.logits, "the counters see what is wasted"


def test_guard_a_base_that_cannot_pack_computes_logits_of_trained_tokens_only() -> None:
    data, base = rows(), family("bloom")
    trained = sum(int(data.row(row)[1][1:].sum()) for row in range(len(data)))
    one = Trained(base, tuning_of({"type": "lora", "lora": {"r": 4}}), SupervisedSettings())
    try:
        with Counted(base) as now:
            one.step(data, 3)
    finally:
        one.tuning.detach()
    assert now.logits == trained


def test_a_sliding_window_is_kept_within_each_row() -> None:
    """Gemma and Mistral have layers that see the last tokens only; a wider window than the row is none."""
    base = load_family("mistral")
    base.model.config.sliding_window = 4
    assert base.unpacked_because == ""
    assert compare(base, tuning_of(LORA), SupervisedSettings(), rows())


def test_a_base_is_padded_that_mixes_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by trying: whatever a family does, a row's logits must be those of the row alone."""
    base = load_family("llama")
    layer = base.model.get_submodule("model.layers.0.mlp")
    hook = layer.register_forward_hook(lambda module, inputs, output: output + 0.1 * output.mean(dim=1, keepdim=True))
    assert base.unpacked_because == "a row's logits change with the rows before it"
    hook.remove()
    other = load_family("llama")
    monkeypatch.setattr(other.model.get_submodule("model.layers.1"), "forward", lambda states, **_: states)
    assert other.unpacked_because == "its layers are not all attention that is told where rows begin"


def test_chunks_of_the_output_layer_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers as torch's cross entropy, whatever fits into a chunk, for every weight of a token's loss."""
    numbers = torch.Generator().manual_seed(1)
    layer = nn.Linear(16, 50).requires_grad_(False)
    states_NH = torch.randn(37, 16, generator=numbers)
    targets_N = torch.randint(0, 50, (37,), generator=numbers)
    weights_N = torch.rand(37, generator=numbers)

    def found(losses_of: Any) -> tuple[Tensor, Tensor]:
        leaf_NH = states_NH.clone().requires_grad_()
        losses_N = losses_of(leaf_NH)
        (weights_N * losses_N).sum().backward()
        assert leaf_NH.grad is not None
        return losses_N.detach(), leaf_NH.grad

    expected = found(lambda leaf_NH: cross_entropy(layer(leaf_NH), targets_N, reduction="none"))
    for logits in (50 * 5, 2**20):
        monkeypatch.setattr(output_layer, "LOGITS", logits)
        right_N = losses_and_right(layer, states_NH, targets_N)[1]
        assert torch.equal(right_N, layer(states_NH).argmax(dim=-1) == targets_N)
        for one, other in zip(found(lambda leaf: losses_and_right(layer, leaf, targets_N)[0]), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
