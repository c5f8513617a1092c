"""The registries: names, defaults, and when they close; and what a process does with a method it does not have."""

from typing import Any, ClassVar

import pytest

from service.domain.errors import JobError
from service.recipes.format import Format, recognise
from service.recipes.formats.chat import Chat
from service.recipes.formats.completion import Completion
from service.recipes.formats.preference import Preference
from service.recipes.objective import OBJECTIVES, objective_of, own_settings, resolve_auto
from service.recipes.objectives.dpo import DpoSettings
from service.recipes.recipe import Recipe
from service.recipes.registry import Named, Registry
from service.recipes.tuning import TUNINGS, BaseSize, tuning_of
from service.recipes.tunings.lora import LoraSettings


class One:
    name: ClassVar[str] = "one"


class Another:
    name: ClassVar[str] = "another"


def test_the_default_comes_first_then_the_names() -> None:
    registry: Registry[type[Named]] = Registry("thing")
    registry.register(Another)
    registry.register_default(One)
    assert registry.default is One
    assert registry.names == ["one", "another"]
    assert registry.find("two") is None


def test_a_name_is_registered_once_and_before_the_first_read() -> None:
    registry: Registry[type[Named]] = Registry("thing")
    registry.register(One)
    with pytest.raises(ValueError, match="registered twice"):
        registry.register(One)
    for wrong in ("", "Type", "type", "a-b", "1a"):
        with pytest.raises(ValueError, match="not a name"):
            registry.register(type("Wrong", (), {"name": wrong}))
    assert registry.names == ["one"]
    with pytest.raises(RuntimeError, match="LUTHIER_EXTENSIONS"):
        registry.register(Another)


def test_a_recipe_comes_back_from_its_json_as_the_types_that_it_was() -> None:
    recipe = Recipe(objective=DpoSettings(beta=0.3), tuning=LoraSettings(r=4, dropout=0.5))
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert again == recipe
    assert type(again.tuning) is LoraSettings


def test_a_method_that_is_no_longer_there_fails_the_job_by_name() -> None:
    for read in (tuning_of, objective_of):
        with pytest.raises(JobError, match="'gone' any more") as failed:
            read({"type": "gone", "gone": {}})
        assert failed.value.code == "method_unavailable"


def test_a_job_of_an_earlier_version_has_the_defaults_of_what_came_later() -> None:
    stored = {"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.0, "beta": 0.2}
    assert own_settings(DpoSettings, stored) == DpoSettings(beta=0.2)


@pytest.mark.parametrize(
    ("settings", "beta"),
    [
        ({}, 0.1),
        ({"loss_type": "ipo"}, 0.1),
        ({"length_normalized": True}, 5.0),
        ({"length_normalized": True, "loss_type": "ipo"}, 0.1),
    ],
)
def test_beta_is_chosen_by_what_a_reward_is(settings: dict[str, Any], beta: float) -> None:
    given = DpoSettings(**settings).model_dump() | {"n_epochs": "auto", "batch_size": "auto"}
    resolved = resolve_auto(DpoSettings, given, 100)
    assert resolved["beta"] == beta
    assert own_settings(DpoSettings, resolved) == DpoSettings(**settings, beta=beta)


def test_every_auto_has_a_rule() -> None:
    for objective in OBJECTIVES:
        automatic = {name for name, field in objective.model_fields.items() if field.default == "auto"}
        assert automatic == objective.auto.keys()


def test_default_learning_rates_fall_with_the_size_or_stay() -> None:
    for tuning in TUNINGS:
        small, large = (tuning.default_learning_rate(BaseSize(size, 32)) for size in (512, 8192))
        assert 0 < large <= small < 1
    assert LoraSettings.default_learning_rate(BaseSize(2000, 16)) == pytest.approx(5e-4)
    assert LoraSettings.default_learning_rate(BaseSize(576, 30)) == pytest.approx(1.32e-3, rel=0.01)  # 135 M parameters


@pytest.mark.parametrize(
    ("keys", "format"),
    [
        ({"messages"}, Chat),
        ({"messages", "tools", "mood"}, Chat),
        ({"messages", "prompt"}, Chat),
        ({"prompt", "completion"}, Completion),
        ({"completion"}, Completion),
        ({"input"}, Preference),
        ({"input", "non_preferred_completion"}, Preference),
        ({"input", "preferred_output", "non_preferred_output"}, Preference),
    ],
)
def test_a_row_is_recognised_by_its_whole_shape(keys: set[str], format: type[Format]) -> None:
    assert recognise(keys) is format


def test_a_row_that_has_nothing_that_any_format_requires_is_of_none() -> None:
    assert recognise({"tools", "parallel_tool_calls"}) is None
