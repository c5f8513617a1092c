"""Names of tuned models, and where their artifacts lie."""

import pytest

from service.domain.model import artifact_prefix, model_name
from service.storage.base import check_key


@pytest.mark.parametrize(
    ("suffix", "step", "name"),
    [
        ("colours", None, "ft:tiny:acme:colours:AbCd1234"),
        (None, None, "ft:tiny:acme::AbCd1234"),
        (None, 80, "ft:tiny:acme::AbCd1234:ckpt-step-80"),
    ],
)
def test_a_name_has_openais_form(suffix: str | None, step: int | None, name: str) -> None:
    assert model_name("tiny", "acme", suffix, "AbCd1234", step) == name


def test_a_hub_id_puts_no_slash_into_a_name() -> None:
    assert model_name("Org/Base-1", "acme", None, "AbCd1234") == "ft:Org-Base-1:acme::AbCd1234"


@pytest.mark.parametrize("name", ["ft:tiny:acme::AbCd1234", "../x", "a/b", "ft:ü:acme::x"])
def test_any_name_is_one_safe_segment_in_storage(name: str) -> None:
    prefix = artifact_prefix(name)
    check_key(prefix + "manifest.json")
    assert prefix.count("/") == 2
