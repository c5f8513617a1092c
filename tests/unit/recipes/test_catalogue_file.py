"""An entry comes into the catalogue and leaves it; every comment and every other entry stays as it is written."""

import tomllib

import pytest

from service.recipes.base import Base, EngineKind, Serving
from service.recipes.base_description import BaseDescription, entry, id_for
from service.recipes.catalogue import CatalogueError
from service.recipes.catalogue_file import with_base, without_base

WRITTEN = """\
# of the workshop
[[base]]
id = "a"   # the old one
source = "x/a"
context_tokens = 64
serving = { tunings = ["lora"] }

# about b
[[base]]
id = "b"
source = "x/b"
context_tokens = 64
# rates were measured in May
[base.learning_rate]
lora = 0.001
[base.serving]
tunings = ["lora"]  # no others
"""
NEW = Base(
    id="new",
    aliases=("newer",),
    source='/m/a "b" \\ é',
    revision="c0ffee",
    context_tokens=64,
    learning_rate={"lora": 1e-5},
    serving=Serving(engine="vllm", tunings=frozenset({"lora"}), max_rank=16),
)
FOUND = BaseDescription(
    source="/m", revision="", dtype="float32", context_tokens=131072, chat_template=True, licence=None
)


def test_an_added_entry_leaves_every_other_byte_and_can_be_removed_again() -> None:
    added = with_base(WRITTEN, NEW)
    assert added.startswith(WRITTEN) and 'source = "/m/a \\"b\\" \\\\ é"' in added
    assert without_base(added, "new").strip() == WRITTEN.strip()


def test_an_entry_of_every_field_is_read_as_it_was() -> None:
    (read,) = tomllib.loads(with_base("", NEW))["base"]
    assert Base.model_validate(read) == NEW


def test_a_removed_entry_takes_no_comment_of_the_next_one() -> None:
    left = without_base(WRITTEN, "a")
    assert left.startswith("# of the workshop\n# about b\n[[base]]\n") and left.endswith("# no others\n")
    assert without_base(WRITTEN, "b") == WRITTEN[: WRITTEN.index('[[base]]\nid = "b"')]


@pytest.mark.parametrize(
    ("text", "id", "said"),
    [
        (WRITTEN, "c", "no base 'c'; it has: a, b"),
        ('[[base]]\nid = "a"\n', "a", "only base"),
        ('base = [{ id = "a" }, { id = "b" }]\n', "a", "by hand"),
        ('[[base]]\nid = "a"\nsource = """\n[[base]]\n"""\n[[base]]\nid = "b"\n', "b", "by hand"),
        ("[[base", "a", "cannot be read"),
    ],
)
def test_what_cannot_be_removed_is_said(text: str, id: str, said: str) -> None:
    with pytest.raises(CatalogueError, match=said):
        without_base(text, id)


def test_bases_in_another_form_are_not_added_to() -> None:
    with pytest.raises(CatalogueError, match="by hand"):
        with_base('base = [{ id = "a" }]\n', NEW)


def test_the_entry_follows_from_the_files_and_what_the_caller_chooses() -> None:
    assert (entry(FOUND, "m").context_tokens, entry(FOUND, "m", context_tokens=100_000).context_tokens) == (
        4096,
        100_000,
    )
    assert entry(FOUND.model_copy(update={"context_tokens": 512}), "m").context_tokens == 512
    served = entry(FOUND, "m", engine="vllm", dtype="bfloat16")
    assert (served.serving.max_rank, served.serving.tunings, served.dtype) == (16, {"lora"}, "bfloat16")


@pytest.mark.parametrize("engine", ["embedded", "vllm"])
def test_a_packed_base_is_served_with_what_leaves_its_weights_alone(engine: EngineKind) -> None:
    packed, plain = entry(FOUND, "m", quantization="nf4", engine=engine), entry(FOUND, "m", engine=engine)
    moving = {"full", "partial"} if engine == "embedded" else set()
    assert plain.serving.tunings - packed.serving.tunings == moving
    (read,) = tomllib.loads(with_base("", packed))["base"]
    assert Base.model_validate(read) == packed and read["quantization"] == "nf4"


def test_a_base_without_a_template_is_refused_unless_none_is_needed() -> None:
    plain = FOUND.model_copy(update={"chat_template": False})
    with pytest.raises(CatalogueError, match=r"/m has no chat template.*--without-template"):
        entry(plain, "m")
    assert entry(plain, "m", without_template=True).source == "/m"


@pytest.mark.parametrize(
    ("source", "id"),
    [("Qwen/Qwen2.5-0.5B", "qwen2.5-0.5b"), ("/m/A b.gguf", "a-b"), ("./x/", "x"), ("~/Über", "ber"), (".", "")],
)
def test_an_id_is_made_of_the_sources_name(source: str, id: str) -> None:
    assert id_for(source) == id
    assert id_for(source, "nf4") == (f"{id}-nf4" if id else "")
