"""Recipes for tests, from what a row of the database holds."""

from collections.abc import Mapping
from typing import Any

from service.recipes.objective import objective_of
from service.recipes.recipe import Recipe
from service.recipes.tuning import tuning_of


def recipe(tuning: Mapping[str, Any], objective: str = "supervised", **settings: Any) -> Recipe:
    """`tuning` as `{"type": t, t: settings}`; `settings` are the objective's own."""
    return Recipe(objective=objective_of({"type": objective, objective: settings}), tuning=tuning_of(tuning))
