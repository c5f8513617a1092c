"""docs/settings.md says what service/settings/settings.py says."""

from docs.make_settings import render
from service.settings.settings import Settings
from tests.house_rules.tree import ROOT

PAGE = ROOT / "docs" / "settings.md"


def missing_settings(page: str) -> list[str]:
    """Settings without a row."""
    variables = [f"LUTHIER_{name.upper()}" for name in Settings.model_fields]
    return [variable for variable in variables if f"\n| `{variable}` |" not in page]


def test_every_setting_is_documented():
    assert missing_settings(PAGE.read_text(encoding="utf-8")) == []


def test_the_settings_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python -m docs.make_settings"


def test_every_setting_says_what_it_does():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_this_rule_can_be_broken():
    assert missing_settings(render().replace("| `LUTHIER_PORT` |", "| `LUTHIER_HARBOUR` |")) == ["LUTHIER_PORT"]
