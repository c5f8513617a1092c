"""Which parameters move: one small file per tuning, found here by the name that a job's `tuning.type` carries.

Knows models and adapters; must not know losses, optimizers, jobs or storage. Trainer and engine both build on it.
"""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from workers.tunings.base import AdapterMismatch, Tuning
from workers.tunings.files import read_config
from workers.tunings.lora import LoraTuning
from workers.tunings.prompt import PromptTuning

__all__ = ["TUNINGS", "AdapterMismatch", "Tuning", "create_tuning", "load_tuning", "open_tuning", "read_tuning"]

TUNINGS: dict[str, type[LoraTuning] | type[PromptTuning]] = {"lora": LoraTuning, "prompt": PromptTuning}


def create_tuning(spec: dict[str, Any], model: PreTrainedModel, name: str) -> Tuning:
    """The tuning of `spec` (`{"type": t, t: settings}`), not yet attached.

    `name` is unique among the tunings of `model` and made of letters, digits and `_`: it becomes part of module names.
    """
    if not name.isidentifier():
        raise ValueError(f"not a name for a tuning: {name!r}")
    kind = spec["type"]
    return TUNINGS[kind](model, name, spec[kind])


def read_tuning(folder: Path, model: PreTrainedModel, name: str) -> Tuning:
    """The tuning that was saved in `folder`, neither attached nor loaded. Raises AdapterMismatch."""
    config = read_config(folder)
    for kind, implementation in TUNINGS.items():
        if implementation.peft_type == config.get("peft_type"):
            return create_tuning({"type": kind, kind: implementation.settings_of(config)}, model, name)
    raise AdapterMismatch(f"No tuning of this installation reads adapters of the type {config.get('peft_type')!r}.")


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
