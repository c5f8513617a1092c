"""Which parameters move: one small file per tuning, found here by its recipe's name. Settings are in `service.recipes`.

Knows models and adapters; must not know losses, optimizers, jobs or storage. Trainer and engine both build on it.
"""

from pathlib import Path

from transformers import PreTrainedModel

from service.recipes.tuning import TUNINGS as RECIPES
from service.recipes.tuning import TuningSettings
from workers.tunings.base import TUNINGS, AdapterMismatch, Tuning
from workers.tunings.files import read_config

__all__ = ["AdapterMismatch", "Tuning", "create_tuning", "load_tuning", "open_tuning", "read_tuning"]


def create_tuning(settings: TuningSettings, model: PreTrainedModel, name: str) -> Tuning:
    """The tuning of these settings, not yet attached.

    `name` is unique among the tunings of `model` and made of letters, digits and `_`: it becomes part of module names.
    """
    if not name.isidentifier():
        raise ValueError(f"not a name for a tuning: {name!r}")
    return TUNINGS.find(type(settings))(model, name, settings)


def read_tuning(folder: Path, model: PreTrainedModel, name: str) -> Tuning:
    """The tuning that was saved in `folder`, neither attached nor loaded. Raises AdapterMismatch."""
    config = read_config(folder)
    recipe = next((recipe for recipe in RECIPES if recipe.peft_type == config.get("peft_type")), None)
    if recipe is None:
        raise AdapterMismatch(f"No tuning of this installation reads adapters of the type {config.get('peft_type')!r}.")
    return create_tuning(TUNINGS.find(recipe).settings_of(config), model, name)


def load_tuning(tuning: Tuning, folder: Path) -> None:
    """Attaches the tuning with the weights saved in `folder`. Raises AdapterMismatch or JobError, leaving no trace."""
    tuning.attach()
    try:
        tuning.load(folder)
    except BaseException:
        tuning.detach()
        raise


def open_tuning(folder: Path, model: PreTrainedModel, name: str) -> Tuning:
    """The tuning that was saved in `folder`, attached to `model` and loaded. Raises AdapterMismatch."""
    tuning = read_tuning(folder, model, name)
    load_tuning(tuning, folder)
    return tuning
