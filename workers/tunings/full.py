"""Full fine-tuning: every weight of the base moves, in a copy of its own."""

from service.domain.json import JsonObject
from service.recipes.tunings.full import FullSettings
from workers.tunings.base import TUNINGS
from workers.tunings.private_weights import PrivateWeights


@TUNINGS.of(FullSettings)
class FullTuning(PrivateWeights):
    """A `Tuning`: all parameters, by their names in the base."""

    @staticmethod
    def settings_of(config: JsonObject) -> FullSettings:
        """The tuning's settings from a saved adapter's config."""
        return FullSettings()

    def moving(self) -> set[str]:
        return {name for name, _ in self._base.named_parameters()}
