"""The adapters attached to one model, and which of them every row of a forward pass uses.

PEFT's LoRA layers take `adapter_names`, one name per row. PEFT's own hooks that hand the names down are made anew at
every forward pass and stay behind when it raises; here one lasting hook per layer does it. Knows no requests and no
storage. Used by one thread at a time.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakSet

from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from workers.tunings import Tuning, open_tuning

NONE = "__base__"  # PEFT's word for a row without an adapter


@dataclass(frozen=True, eq=False)
class Adapter:
    """An attached tuning under the name that the model's layers know it by.

    `template_date` is what the chat template was given as today's when it was trained.
    """

    name: str
    tuning: Tuning
    template_date: date | None = None


class Adapters:
    """Attaches saved adapters to `model`, all of them inactive: rows choose theirs with `of_rows`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._numbers = count(1)
        self._hooked: WeakSet[nn.Module] = WeakSet()
        self._names: list[str] | None = None

    def attach(self, folder: Path) -> Adapter:
        """Loads the adapter saved in `folder`. Raises AdapterMismatch or JobError when it does not fit the model."""
        name = f"adapter{next(self._numbers)}"
        tuning = open_tuning(folder, self._model, name)
        for layer in self._model.modules():
            if isinstance(layer, LoraLayer) and layer not in self._hooked:
                layer.register_forward_pre_hook(self._tell, with_kwargs=True)
                self._hooked.add(layer)
        return Adapter(name, tuning)

    def detach(self, adapter: Adapter) -> None:
        """Frees its memory. No row may still use it."""
        adapter.tuning.detach()

    @contextmanager
    def of_rows(self, adapters: Sequence[Adapter | None]) -> Iterator[None]:
        """Within, row i of the model's batch computes with `adapters[i]`; None is the base alone."""
        self._names = [adapter.name if adapter else NONE for adapter in adapters]
        try:
            yield
        finally:
            self._names = None

    def _tell(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (args, kwargs) if self._names is None else (args, kwargs | {"adapter_names": self._names})
