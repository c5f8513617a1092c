"""The tunings, which decide what parameters are trained: one small file each, named as its recipe in `service.recipes`.

Does not depend on losses, optimizers, jobs or storage. The trainer and the embedded engine both use it.
"""

from pathlib import Path

from transformers import PreTrainedModel

from service.processes.imports import UNWANTED, without
from service.recipes.tuning import TUNINGS as RECIPES
from service.recipes.tuning import TuningSettings
from workers.tunings.base import TUNINGS, AdapterMismatch, Tuning
from workers.tunings.files import read_config

with without(UNWANTED):  # the tunings import PEFT, which asks once, here, whether bitsandbytes is installed
    from peft.import_utils import is_bnb_4bit_available, is_bnb_available

    is_bnb_available()
    is_bnb_4bit_available()

__all__ = ["AdapterMismatch", "Tuning", "create_tuning", "load_tuning", "open_tuning", "read_tuning"]


def create_tuning(settings: TuningSettings, model: PreTrainedModel, name: str) -> Tuning:
    """The tuning with these settings, not yet attached.

    `name` is unique among the tunings of `model` and an identifier, since it becomes part of module names.
    """
    if not name.isidentifier():
        raise ValueError(f"the name of a tuning must be an identifier, not {name!r}")
    return TUNINGS.find(type(settings))(model, name, settings)


def saved_kind(folder: Path) -> type[TuningSettings]:
    """The kind of tuning that was saved in `folder`. Raises AdapterMismatch."""
    peft_type = read_config(folder).get("peft_type")
    recipe = next((recipe for recipe in RECIPES if recipe.peft_type == peft_type), None)
    if recipe is None:
        raise AdapterMismatch(f"This installation has no tuning for adapters of the type {peft_type!r}.")
    return recipe


def read_tuning(folder: Path, model: PreTrainedModel, name: str) -> Tuning:
    """The tuning that was saved in `folder`, neither attached nor loaded. Raises AdapterMismatch."""
    return create_tuning(TUNINGS.find(saved_kind(folder)).settings_of(read_config(folder)), model, name)


def load_tuning(tuning: Tuning, folder: Path) -> None:
    """Attaches the tuning with the weights in `folder`. Raises AdapterMismatch or JobError and then leaves no trace."""
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
