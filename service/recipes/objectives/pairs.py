"""What every objective of preference pairs declares: rows, metrics and result columns. Registers nothing itself."""

from collections.abc import Mapping
from typing import ClassVar

from service.recipes.format import Format
from service.recipes.formats.preference import Preference
from service.recipes.objective import ObjectiveSettings


class PairSettings(ObjectiveSettings):
    """Of an objective that reads two answers to one input, of which the first is preferred."""

    formats: ClassVar[tuple[type[Format], ...]] = (Preference,)
    columns: ClassVar[Mapping[str, str]] = {
        "step": "step",
        "train_loss": "train_loss",
        "train_accuracy": "train_accuracy",
        "valid_loss": "valid_loss",
        "valid_accuracy": "valid_accuracy",
        "train_reward_margin": "train_reward_margin",
        "valid_reward_margin": "valid_reward_margin",
    }
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "reward_margin", "rewards_chosen", "rewards_rejected")
    rows_per_example: ClassVar[int] = 2
