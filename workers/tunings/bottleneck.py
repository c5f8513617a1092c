"""Bottleneck adapters: h + W_up f(W_down h + b) + b' of a sublayer's output h, before its residual is added.

Houlsby et al., 2019 (arXiv 1902.00751), section 2.1: after attention and after feed-forward; Pfeiffer et al., 2020
(arXiv 2005.00247): after feed-forward only. Shapes: B rows, T tokens, H hidden, M the middle.
"""

from itertools import chain
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from service.domain.json import JsonObject
from service.recipes.tunings.bottleneck import BottleneckSettings
from workers.tunings.base import TUNINGS
from workers.tunings.blocks import sublayers
from workers.tunings.own_format import OwnFormat
from workers.tunings.sites import Place, Rows, leave, site_at

STANDARD_DEVIATION = 1e-2  # of W_down at the start, cut off at two of them: section 3.6 of Houlsby et al.


class Bottleneck(nn.Module):
    """Around one module of the base. W_up is initially 0: no change before the first step."""

    original: nn.Module

    def __init__(self, original: nn.Module, hidden_size: int, size: int, non_linearity: str) -> None:
        super().__init__()
        self.__dict__["original"] = original  # not registered: it is no part of what is trained
        device = next(chain(original.parameters(), original.buffers())).device  # packed weights are buffers
        self.down = nn.Linear(hidden_size, size, device=device)  # float32, whatever the base's type
        self.up = nn.Linear(size, hidden_size, device=device)
        self.function: nn.Module = ACT2FN[non_linearity]
        nn.init.trunc_normal_(
            self.down.weight, std=STANDARD_DEVIATION, a=-2 * STANDARD_DEVIATION, b=2 * STANDARD_DEVIATION
        )
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        return self.added(self.original(x))

    def onto(self, _: Tensor, states_BTH: Tensor) -> Tensor:
        """See `workers.tunings.sites.Onto`."""
        return self.added(states_BTH)

    def added(self, states_BTH: Tensor) -> Tensor:
        exact_BTH = states_BTH.float()
        middle_BTM = self.function(self.down(exact_BTH))
        # h + W_up f(W_down h + b) + b'
        changed_BTH: Tensor = exact_BTH + self.up(middle_BTM)
        return changed_BTH.to(states_BTH.dtype)


@TUNINGS.of(BottleneckSettings)
class BottleneckTuning(OwnFormat):
    """A `Tuning`: a bottleneck after chosen sublayers of every block."""

    mixes_rows: ClassVar[bool] = True

    def __init__(self, model: PreTrainedModel, name: str, settings: BottleneckSettings) -> None:
        super().__init__(model, name, settings)
        self._settings = settings
        self._hidden_size: int = model.config.get_text_config().hidden_size
        self._seats: list[tuple[Place, Bottleneck]] = []

    @staticmethod
    def settings_of(config: JsonObject) -> BottleneckSettings:
        """The tuning's settings from a saved adapter's config."""
        names = ("placement", "reduction", "size", "non_linearity")
        return BottleneckSettings.model_validate({name: config[name] for name in names})

    def memory_bytes(self) -> int:
        """Raises JobError where the base's structure is not known."""
        one = 2 * self._hidden_size * self._size + self._size + self._hidden_size
        return len(self._paths()) * one * torch.float32.itemsize

    def attach(self) -> None:
        """Raises JobError where the base's structure is not known."""
        for path in self._paths():
            place = site_at(self._base, path)
            layer = Bottleneck(place.site.original, self._hidden_size, self._size, self._settings.non_linearity)
            place.site.join(layer, layer.onto)
            self._seats.append((place, layer))
            self._parameters |= {f"{path}.{name}": parameter for name, parameter in layer.named_parameters()}

    def activate(self, rows: Rows | None = None) -> None:
        for place, layer in self._seats:
            place.site.choose(layer, rows)

    def deactivate(self) -> None:
        for place, layer in self._seats:
            place.site.release(layer)

    def detach(self) -> None:
        for place, layer in self._seats:
            leave(place, layer)
        self._seats, self._parameters = [], {}

    @property
    def _size(self) -> int:
        if self._settings.size == "auto":
            return max(1, self._hidden_size // self._settings.reduction)
        return self._settings.size

    def _paths(self) -> list[str]:
        found = sublayers(self._base)
        attention = [] if self._settings.placement == "pfeiffer" else [path for one in found for path in one.attentions]
        return attention + [one.feed_forward for one in found]
