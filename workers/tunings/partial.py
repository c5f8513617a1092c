"""Some weights of the base move: those of its last blocks, all biases, or those that are named."""

from transformers import PreTrainedModel

from service.domain.errors import JobError
from service.domain.json import JsonObject
from service.recipes.tunings.partial import PartialSettings
from workers.tunings.base import TUNINGS
from workers.tunings.blocks import blocks
from workers.tunings.private_weights import PrivateWeights

_SHOWN = 12  # names in a message


@TUNINGS.of(PartialSettings)
class PartialTuning(PrivateWeights):
    """A `Tuning`: parameters of the base, by their names there."""

    def __init__(self, model: PreTrainedModel, name: str, settings: PartialSettings) -> None:
        super().__init__(model, name, settings)
        self._chosen = settings.parameters

    @staticmethod
    def settings_of(config: JsonObject) -> PartialSettings:
        """The tuning's settings from a saved adapter's config."""
        return PartialSettings(parameters=config["parameters"])

    def moving(self) -> set[str]:
        if isinstance(self._chosen, list):
            return self._named(self._chosen)
        if self._chosen == "biases":
            return self._biases()
        return self._last(int(self._chosen.removeprefix("last:")))

    def _last(self, count: int) -> set[str]:
        paths = list(blocks(self._base))
        if count > len(paths):
            raise _refused(f"The base has {len(paths)} blocks, not {count}; use at most last:{len(paths)}.")
        return self._under(paths[-count:])

    def _biases(self) -> set[str]:
        biases = {name for name, _ in self._base.named_parameters() if name.rpartition(".")[2] == "bias"}
        if not biases:
            raise _refused("The base has no biases; use last:n or names of parameters.")
        return biases

    def _named(self, parts: list[str]) -> set[str]:
        """The parameters whose names have one of these parts: "mlp" is no part of "mlp_norm"."""
        aliases = self._names()
        unknown = [part for part in parts if not any(f".{part}." in f".{name}." for name in aliases)]
        if unknown:
            offered = sorted({_unnumbered(name) for name in aliases})
            more = f" and {len(offered) - _SHOWN} more" if len(offered) > _SHOWN else ""
            raise _refused(
                f"The base has no parameters named {', '.join(unknown)}; it has {', '.join(offered[:_SHOWN])}{more}."
            )
        return {own for name, own in aliases.items() if any(f".{part}." in f".{name}." for part in parts)}

    def _under(self, paths: list[str]) -> set[str]:
        return {own for name, own in self._names().items() if any(name.startswith(f"{path}.") for path in paths)}

    def _names(self) -> dict[str, str]:
        """Every name of a parameter, and the first name of the same: a tied output layer is found by its own, too."""
        first = {parameter: name for name, parameter in self._base.named_parameters()}
        return {name: first[parameter] for name, parameter in self._base.named_parameters(remove_duplicate=False)}


def _unnumbered(name: str) -> str:
    """Of the blocks' parameters, which have the same names in each, one is shown."""
    return ".".join("N" if part.isdigit() else part for part in name.split("."))


def _refused(message: str) -> JobError:
    return JobError("invalid_parameters", message, param="tuning.partial.parameters")
