"""The settings of a job's method beside their defaults, from the registries of methods."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.domain.job import Job
from service.recipes.objective import OBJECTIVES, Hyperparameters, hyperparameters_type
from service.recipes.served_form import ServedForm, form_of
from service.recipes.tuning import TUNINGS

__all__ = ["Setting", "settings_of"]


@dataclass(frozen=True)
class Setting:
    """One setting of a job; `default` is None where there is none any more."""

    name: str
    value: Any
    default: Any
    about: str

    @property
    def differs(self) -> bool:
        """Whether somebody, or the rule behind "auto", has chosen it."""
        return bool(self.value != self.default)


def settings_of(job: Job) -> list[Setting]:
    """Those that differ from their defaults first."""
    objective, kind = OBJECTIVES.find(job.objective), job.tuning["type"]
    tuning = TUNINGS.find(kind)
    of_method = Hyperparameters if objective is None else hyperparameters_type(objective)
    found = [_setting(name, value, of_method.model_fields) for name, value in job.hyperparameters.items()]
    fields = {} if tuning is None else tuning.model_fields
    found += [_setting(name, value, fields, f"{kind}.") for name, value in job.tuning.get(kind, {}).items()]
    form = form_of(job.tuning)
    served = {} if form is None else form.stored()
    found += [_setting(name, value, ServedForm.model_fields) for name, value in served.items()]
    return sorted(found, key=lambda setting: not setting.differs)


def _setting(name: str, value: Any, fields: Mapping[str, Any], prefix: str = "") -> Setting:
    field = fields.get(name)
    if field is None:
        return Setting(f"{prefix}{name}", value, None, "")
    return Setting(f"{prefix}{name}", value, None if field.is_required() else field.default, field.description or "")
