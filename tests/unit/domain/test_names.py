"""Names of tuned models, and where their artifacts lie."""

from pathlib import Path

import pytest

from service.domain.errors import InvalidRequest
from service.domain.model import STEP_LIMIT, check_suffix, is_model_name, model_name, suffix_room
from service.domain.storage_keys import agreement_key, artifact_prefix
from service.recipes.catalogue import CatalogueError, read_catalogue
from service.storage.base import check_key, one_chunk, read
from service.storage.local import LocalStore


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


def longest(base: str, organization: str, suffix: str | None) -> str:
    return model_name(base, organization, suffix, "AbCd1234", STEP_LIMIT)


async def test_the_longest_name_that_is_allowed_can_be_stored_and_called(tmp_path: Path) -> None:
    base, organization = "Org/" + "b" * 120, "acme"
    name = longest(base, organization, "s" * suffix_room(base, organization))
    assert is_model_name(name)
    store = LocalStore(tmp_path)
    for key in (artifact_prefix(name) + "manifest.json", agreement_key("ftjob-1", name)):
        await store.put(key, one_chunk(b"x"))  # the file system has the last word
        assert await read(store, key) == b"x"


@pytest.mark.parametrize("suffix", ["s", "s" * 40])
def test_one_character_more_is_refused_with_what_is_left(suffix: str) -> None:
    base = "b" * (len(suffix) - 1 + 200)
    while suffix_room(base, "acme") != len(suffix) - 1:
        base = base[:-1] if suffix_room(base, "acme") < len(suffix) - 1 else base + "b"
    assert not is_model_name(longest(base, "acme", suffix))
    with pytest.raises(InvalidRequest, match=f"have room for {len(suffix) - 1} only") as raised:
        check_suffix(base, "acme", suffix)
    assert raised.value.param == "suffix"
    check_suffix(base, "acme", suffix[1:] or None)


def test_a_base_whose_models_could_have_no_name_is_refused_by_its_id(tmp_path: Path) -> None:
    entry = '[[base]]\nid = "{}"\nsource = "x"\ncontext_tokens = 64\nserving = {{ tunings = ["lora"] }}\n'
    catalogue = tmp_path / "bases.toml"
    room = suffix_room("b", "x" * 32)
    catalogue.write_text(entry.format("b" * (room + 1)))
    assert len(read_catalogue(catalogue).bases) == 1
    catalogue.write_text(entry.format("b" * (room + 2)))
    with pytest.raises(CatalogueError, match=r"'b+' has an id that is 1 characters too long"):
        read_catalogue(catalogue)
