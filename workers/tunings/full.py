"""Full fine-tuning: every weight of the base moves, in a copy of its own."""

from typing import Any

from service.recipes.tunings.full import FullSettings
from workers.tunings.base import TUNINGS
from workers.tunings.private_weights import PrivateWeights


@TUNINGS.of(FullSettings)
class FullTuning(PrivateWeights):
    """A `Tuning`: all parameters, by their names in the base."""

    @staticmethod
    def settings_of(config: dict[str, Any]) -> FullSettings:
        """The tuning's settings from a saved adapter's config."""
        return FullSettings()

    def moving(self) -> set[str]:
        return {name for name, _ in self._base.named_parameters()}
