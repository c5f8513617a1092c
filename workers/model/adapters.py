"""The adapters attached to one model, and which of them every row of a forward pass uses.

Each tuning implements how its rows are computed; here rows are only grouped by adapter. Does not depend on requests or
storage. Not thread-safe: one thread at a time.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path

import torch
from transformers import PreTrainedModel

from workers.model.head import Head, read_head
from workers.tunings import Tuning, load_tuning, read_tuning, saved_kind
from workers.tunings.sites import Rows


@dataclass(frozen=True, eq=False)
class Adapter:
    """An attached tuning. `template_date` is the current date that the chat template got in its training; `head` is the
    output layer of a model that classifies or scores. `packs`: its rows may go through the model one behind the
    other."""

    tuning: Tuning
    template_date: date | None = None
    head: Head | None = None
    packs: bool = False


class Adapters:
    """Attaches saved adapters to `model`, all of them inactive: `rows_use` activates them for rows."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._numbers = count(1)

    def memory_bytes(self, folder: Path) -> int:
        """The memory that attaching the adapter saved in `folder` would take. Raises AdapterMismatch or JobError."""
        return read_tuning(folder, self._model, "adapter").memory_bytes()

    def attach(self, folder: Path) -> Adapter:
        """Loads the adapter saved in `folder`. Raises AdapterMismatch or JobError if it does not fit the model."""
        tuning = read_tuning(folder, self._model, f"adapter{next(self._numbers)}")
        head = read_head(folder, self._model.config.get_text_config().hidden_size, self._model.device)
        load_tuning(tuning, folder)
        return Adapter(tuning, head=head, packs=not saved_kind(folder).unpacked_because)

    def detach(self, adapter: Adapter) -> None:
        """Frees its memory. No row may be using it."""
        adapter.tuning.detach()


@contextmanager
def rows_use(adapters: Sequence[Adapter | None], device: torch.device) -> Iterator[None]:
    """Within, row i of a batch computes with `adapters[i]`; None is the base alone.

    Different adapters in one batch must all mix rows (`Tuning.mixes_rows`), as must an adapter beside the base's rows.
    """
    places: dict[Adapter, list[int]] = {}
    for place, adapter in enumerate(adapters):
        if adapter is not None:
            places.setdefault(adapter, []).append(place)
    try:
        for adapter, mine in places.items():
            everyone = len(mine) == len(adapters)
            adapter.tuning.activate(None if everyone else Rows(torch.tensor(mine, device=device), len(adapters)))
        yield
    finally:
        for adapter in places:
            adapter.tuning.deactivate()
