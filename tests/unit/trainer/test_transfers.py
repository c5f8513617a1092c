"""How often a step asks the device for numbers: once, however many micro-batches it is cut into.

A device for tests: whatever a step computes from its batches is a `OnDevice`, which notes every look at its values.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.given.contrasts import random_contrasts
from tests.given.recipes import recipe
from tests.given.tiny_models import random_pairs, random_rows
from workers.data.batches import Batch
from workers.data.tokenized import TokenizedDataset
from workers.model.load import LoadedBase, environment
from workers.trainer.process import plan
from workers.trainer.process.slot import Phase, Slot
from workers.trainer.protocol import JobSpec

LORA = {"type": "lora", "lora": {"r": 4, "alpha": 8, "dropout": 0.1, "target_modules": "all-linear"}}
LOOKS = {"item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__"}
THEIRS = "transformers/masking_utils.py"  # looks whether anything is padded, once per forward pass


class OnDevice(Tensor):
    """A tensor whose values cost a wait for the device."""

    looks: list[str] = []  # noqa: RUF012  # of all of them

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.__name__ in LOOKS and not sys._getframe(1).f_code.co_filename.endswith(THEIRS):
            cls.looks.append(func.__name__)
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Batches arrive on it."""

    def to(batch: Batch, device: torch.device) -> Batch:
        columns: Mapping[str, Any] = vars(batch)
        tensors = {name: one.as_subclass(OnDevice) for name, one in columns.items() if isinstance(one, Tensor)}
        return replace(batch, **tensors)

    monkeypatch.setattr(Batch, "to", to)
    OnDevice.looks.clear()
    yield


def steps(base: LoadedBase, objective: str, train: TokenizedDataset, valid: TokenizedDataset | None) -> list[list[str]]:
    """The looks of each step of an epoch of two."""
    settings = {"beta": 0.1} if objective == "dpo" else {}
    spec = JobSpec(
        job_id="looked-at", recipe=recipe(LORA, objective, **settings), n_epochs=1,
        batch_size=-(-train.num_examples // 2), learning_rate=1e-3, seed=1, snapshot_steps=100,
    )  # fmt: skip
    slot, looks = Slot(base, environment(base.device), spec, train, valid), []
    while slot.phase is Phase.PREPARE:
        slot.prepare()
    while not slot.finished:
        OnDevice.looks.clear()
        slot.train_step()
        looks.append(list(OnDevice.looks))
    slot.leave()
    return looks


@pytest.mark.parametrize("objective", ["supervised", "dpo", "embedding"])
@pytest.mark.parametrize("limit_tokens", [40, 100_000], ids=["many micro-batches", "one"])
def test_a_step_looks_at_the_device_once(
    base: LoadedBase, objective: str, limit_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "LIMIT_TOKENS", limit_tokens)
    rows = {"dpo": random_pairs, "embedding": random_contrasts}.get(objective, random_rows)
    assert steps(base, objective, rows(16, seed=1), None) == [["tolist"], ["tolist"]]


def test_each_validation_is_one_look_more(base: LoadedBase) -> None:
    looks = steps(base, "supervised", random_rows(16, seed=1), random_rows(300, seed=2))
    assert looks == [["tolist"] * 2, ["tolist"] * 3]  # at the end of the epoch, some and all
