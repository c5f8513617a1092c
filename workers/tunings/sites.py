"""Where tunings meet the base: one `Site` per tuned layer, with the layers of all its tunings side by side.

PEFT nests: a second method wraps the wrapper of the first, which changes names, computes through both, and takes the
neighbour away when it leaves. Here every tuning's layer stands around the original one, and the site passes each row of
a batch to the layer that the row chose. Knows modules and tensors; must not know what a layer computes.
Below every tuning of `workers.tunings` that changes layers of the base. Shapes: B rows, N some of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

# (x of some rows, the original layer's output for them) -> the tuned output: what spares a product with the weights.
Onto = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rows:
    """Some rows of a batch."""

    places_N: Tensor  # int64, on the base's device
    num_rows: int  # of the whole batch


class Site(nn.Module):
    """Stands where `original` stood. Its parameters are the original's, under the same names: the base's state_dict
    has neither more nor less than before."""

    original: nn.Module

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.__dict__["original"] = original  # not registered: no name of the base may change
        self._parameters = original._parameters
        self._buffers = original._buffers
        self.training = original.training
        self._layers: dict[nn.Module, Onto | None] = {}
        self._chosen: dict[nn.Module, Rows | None] = {}

    @property
    def empty(self) -> bool:
        """Whether the last tuning has left."""
        return not self._layers

    def join(self, layer: nn.Module, onto: Onto | None) -> None:
        """Adds a layer around `original`, not chosen. Without `onto` its rows are computed by the layer alone."""
        self._layers[layer] = onto

    def leave(self, layer: nn.Module) -> None:
        """Removes that very layer. May be called twice."""
        self._layers.pop(layer, None)
        self._chosen.pop(layer, None)

    def choose(self, layer: nn.Module, rows: Rows | None) -> None:
        """From here to `release`, `layer` computes these rows; None is all of them."""
        self._chosen[layer] = rows

    def release(self, layer: nn.Module) -> None:
        """May be called twice."""
        self._chosen.pop(layer, None)

    def forward(self, x: Tensor) -> Tensor:
        """`x` begins with the batch's rows. Raises ValueError when it does not and rows differ in their layers."""
        if not self._chosen:
            return self._call(self.original, x)
        if len(self._chosen) == 1:
            ((layer, rows),) = self._chosen.items()
            if rows is None:
                return self._call(layer, x)
        return self._mixed(x)

    def _mixed(self, x: Tensor) -> Tensor:
        """One product with the original's weights for all rows; then each layer does what is its own, on its rows."""
        y = self._call(self.original, x)
        for layer, rows in self._chosen.items():
            if rows is None or len(x) != rows.num_rows:
                raise ValueError("This layer does not see a batch row by row, so that its rows cannot be mixed.")
            onto = self._layers[layer]
            x_N = x[rows.places_N]
            y[rows.places_N] = self._call(layer, x_N) if onto is None else onto(x_N, y[rows.places_N])
        return y

    @staticmethod
    def _call(layer: nn.Module, x: Tensor) -> Tensor:
        y: Tensor = layer(x)
        return y


@dataclass(frozen=True)
class Place:
    """A site in its model."""

    parent: nn.Module
    child: str
    site: Site


def site_at(model: nn.Module, path: str) -> Place:
    """The site of the layer that `model` has at `path`, made there if it is the first tuning's."""
    above, _, child = path.rpartition(".")
    parent = model.get_submodule(above)
    here = parent.get_submodule(child)
    site = here if isinstance(here, Site) else Site(here)
    setattr(parent, child, site)
    return Place(parent, child, site)


def leave(place: Place, layer: nn.Module) -> None:
    """Removes the layer; the last one to leave puts the original module back. May be called twice."""
    place.site.leave(layer)
    if place.site.empty and place.parent.get_submodule(place.child) is place.site:
        setattr(place.parent, place.child, place.site.original)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Inside, `model` is module for module the base, whatever is attached; nothing may be computed meanwhile."""
    places = list(_places(model))
    for place in places:
        setattr(place.parent, place.child, place.site.original)
    try:
        yield
    finally:
        for place in places:
            setattr(place.parent, place.child, place.site)


def _places(model: nn.Module) -> Iterator[Place]:
    for parent in model.modules():
        for child, module in parent.named_children():
            if isinstance(module, Site):
                yield Place(parent, child, module)
