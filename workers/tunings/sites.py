"""A `Site` replaces one tuned layer of the base and holds the layers of all its tunings side by side.

PEFT nests them: a second method wraps the wrapper of the first, which changes names, computes through both, and removes
the other tuning when it is removed. Here every tuning's layer wraps the original one, and the site passes each row of a
batch to the layer that the row uses. Does not depend on what a layer computes.
Used by every tuning of `workers.tunings` that changes layers of the base. Shapes: B rows, N some of them.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# (x of some rows, the original layer's output for them) -> the tuned output, without another product with the weights.
Onto = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rows:
    """Some rows of a batch."""

    places_N: Tensor  # int64, on the base's device
    num_rows: int  # of the whole batch


class Site(nn.Module):
    """Takes the place of `original`. It has the original's parameters and modules under the same names, so the base's
    state_dict does not change, and a site within the original stays where it is."""

    original: nn.Module

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.__dict__["original"] = original  # not registered, so that no name in the base changes
        self._parameters = original._parameters
        self._buffers = original._buffers
        self._modules = original._modules
        self.training = original.training
        self._layers: dict[nn.Module, Onto | None] = {}
        self._chosen: dict[nn.Module, Rows | None] = {}

    @property
    def empty(self) -> bool:
        """Whether no tuning uses the site."""
        return not self._layers

    @property
    def layers(self) -> Collection[nn.Module]:
        """Those of all its tunings."""
        return self._layers.keys()

    def join(self, layer: nn.Module, onto: Onto | None) -> None:
        """Adds a layer around `original`, not active. Without `onto`, the layer itself computes its rows."""
        self._layers[layer] = onto

    def leave(self, layer: nn.Module) -> None:
        """Removes the layer. May be called twice."""
        self._layers.pop(layer, None)
        self._chosen.pop(layer, None)

    def choose(self, layer: nn.Module, rows: Rows | None) -> None:
        """Until `release`, `layer` computes these rows; None is all of them."""
        self._chosen[layer] = rows

    def release(self, layer: nn.Module) -> None:
        """May be called twice."""
        self._chosen.pop(layer, None)

    def __call__(self, x: Tensor) -> Tensor:
        """`forward`, at once where the site has no hooks: torch's way takes as long as a small layer's product, and a
        site is called for every tuned layer and token."""
        if self._forward_pre_hooks or self._forward_hooks or self._backward_pre_hooks or self._backward_hooks:
            return self._call(super().__call__, x)
        return self.forward(x)

    def forward(self, x: Tensor) -> Tensor:
        """The first dimension of `x` is the batch. Raises ValueError if it is not and rows use different layers."""
        if not self._chosen:
            return self._call(self.original, x)
        if len(self._chosen) == 1:
            ((layer, rows),) = self._chosen.items()
            if rows is None:
                return self._whole(layer, x)
        return self._mixed(x)

    def _whole(self, layer: nn.Module, x: Tensor) -> Tensor:
        """All rows use one layer. Where nothing is trained, without what PEFT's layers look up at every call."""
        onto = self._layers[layer] if torch.is_inference_mode_enabled() else None
        return self._call(layer, x) if onto is None else onto(x, self._call(self.original, x))

    def _mixed(self, x: Tensor) -> Tensor:
        """One product with the original's weights for all rows; then each layer adds its own part to its rows."""
        y = self._call(self.original, x)
        for layer, rows in self._chosen.items():
            if rows is None or len(x) != rows.num_rows:
                raise ValueError(
                    "This layer does not get the batch row by row, so its rows cannot use different adapters."
                )
            onto = self._layers[layer]
            x_N = x[rows.places_N]
            y[rows.places_N] = self._call(layer, x_N) if onto is None else onto(x_N, y[rows.places_N])
        return y

    @staticmethod
    def _call(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        y: Tensor = layer(x)
        return y


class OutputChange:
    """A forward hook of a tuning on a whole block of the base, which is called with all rows: it changes the states."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        self._change = change

    def __call__(self, module: nn.Module, inputs: tuple[object, ...], output: Any) -> Any:
        if isinstance(output, tuple):  # states, then what else a family's blocks return
            return (self._change(output[0]), *output[1:])
        return self._change(output)


@dataclass(frozen=True)
class Place:
    """A site in its model."""

    parent: nn.Module
    child: str
    site: Site


def site_at(model: nn.Module, path: str) -> Place:
    """The site of the layer at `path` of `model`, created if the layer has none."""
    above, _, child = path.rpartition(".")
    parent = model.get_submodule(above)
    here = parent.get_submodule(child)
    site = here if isinstance(here, Site) else Site(here)
    setattr(parent, child, site)
    return Place(parent, child, site)


def leave(place: Place, layer: nn.Module) -> None:
    """Removes the layer, and with the last one the site: the original module returns. May be called twice."""
    place.site.leave(layer)
    if place.site.empty and place.parent.get_submodule(place.child) is place.site:
        setattr(place.parent, place.child, place.site.original)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Within, `model` has the base's own modules and no tuning's hooks; no tuning may be used meanwhile."""
    places = list(_places(model))
    for place in places:
        setattr(place.parent, place.child, place.site.original)
    hooks = {module: module._forward_hooks for module in model.modules() if any(_ours(module))}
    for module, attached in hooks.items():
        others = ((id, hook) for id, hook in attached.items() if not isinstance(hook, OutputChange))
        module._forward_hooks = OrderedDict(others)
    try:
        yield
    finally:
        for module, attached in hooks.items():
            module._forward_hooks = attached
        for place in places:
            setattr(place.parent, place.child, place.site)


def _ours(module: nn.Module) -> Iterator[bool]:
    return (isinstance(hook, OutputChange) for hook in module._forward_hooks.values())


def _places(model: nn.Module) -> Iterator[Place]:
    for parent in model.modules():
        for child, module in parent.named_children():
            if isinstance(module, Site):
                yield Place(parent, child, module)
