"""A job's own random numbers, although torch's generators are global: their states are swapped around the job's work.

So another job's dropout never draws from this job's sequence, and a snapshot can store the sequence.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class RandomState:
    """The states of torch's generators as one job left them: the CPU's and, on a GPU, the device's."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        with self._restored():
            torch.manual_seed(seed)
            self._states = self._capture()

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Inside, torch's global generators are this job's; outside, they are as they were."""
        with self._restored():
            self._install(self._states)
            try:
                yield
            finally:
                self._states = self._capture()

    def mark(self) -> Callable[[], None]:
        """Inside `in_force`: what takes the generators back to where they are now."""
        states = self._capture()
        return lambda: self._install(states)

    def state(self) -> dict[str, Tensor]:
        """generator -> its state, for a snapshot."""
        return dict(self._states)

    def restore(self, states: Mapping[str, Tensor]) -> None:
        """Continues from stored states. A generator without one keeps its own (another device: not bit-exact)."""
        self._states = {name: states.get(name, own) for name, own in self._states.items()}

    @contextmanager
    def _restored(self) -> Iterator[None]:
        outside = self._capture()
        try:
            yield
        finally:
            self._install(outside)

    def _capture(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self._device)
        return states

    def _install(self, states: Mapping[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], self._device)
