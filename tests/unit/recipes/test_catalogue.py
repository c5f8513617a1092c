"""A catalogue that names what is not there is refused: which entry, what, what to write; for all entries at once."""

import json
from pathlib import Path

import pytest

from service.recipes.base import Base, Serving
from service.recipes.base_folder import folder_problems, has_chat_template
from service.recipes.catalogue import CatalogueError, read_catalogue
from service.settings.settings import Settings

GOOD = 'source = "hub/x"\ncontext_tokens = 64\nserving = { tunings = ["lora"] }\n'


def refusal(folder: Path, *entries: str) -> str:
    path = folder / "bases.toml"
    path.write_text("".join(f"[[base]]\n{entry}\n" for entry in entries), encoding="utf-8")
    with pytest.raises(CatalogueError) as refused:
        read_catalogue(path)
    return str(refused.value).removeprefix(f"The catalogue {path} cannot be used. ")


def test_the_catalogue_that_comes_with_luthier_is_read() -> None:
    base = read_catalogue(Settings().catalogue).bases["luthier-tiny"]
    assert (base.kind, base.serving.max_rank) == ("causal", 64)


def test_a_learning_rate_need_not_be_given(tmp_path: Path) -> None:
    (tmp_path / "bases.toml").write_text(f'[[base]]\nid = "a"\n{GOOD}', encoding="utf-8")
    assert read_catalogue(tmp_path / "bases.toml").bases["a"].learning_rate == {}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"lora"', '"lroa"', "The base 'a' names 'lroa' in serving.tunings, which is no tuning; write one of 'lora', "),
        ('["lora"]', "[]", "The base 'a' names no tuning in serving.tunings; write one of 'lora', "),
        (
            '["lora"]',
            '["lora"], engines = ["foo"]',
            "has \"foo\" as 'serving.engines.0'; write the URLs of its engines",
        ),
        ('["lora"]', '["lora"], engines = ["http://a:99999"]', "has \"http://a:99999\" as 'serving.engines.0'; write "),
        ('["lora"]', '["lora"], engines = [""]', "has \"\" as 'serving.engines.0'; write the URLs of its engines"),
        ('["lora"]', '["lora"], max_rank = 513', "has 513 as 'serving.max_rank'; write the highest rank of an adapter"),
        ('["lora"]', '["lora"], max_ranks = 8', "'serving.max_ranks', which is no setting; write one of 'max_rank'."),
        ('["lora"]', '["prompt"], engine = "vllm"', "names the tuning 'prompt', which the engine 'vllm' does not "),
        ('["lora"]', '["lora"], tool_call_parser = "x"', "has a serving.tool_call_parser, but the embedded engine "),
        ("context_tokens = 64", "", "The base 'a' has no 'context_tokens'; write a whole number of tokens, at least "),
        ("= 64", '= "many"', "has \"many\" as 'context_tokens'; write a whole number of tokens, at least 16."),
        ("= 64", "= 64\nlearning_rate = { lora = -1 }", "has the learning_rate -1.0 for 'lora'; write a number above "),
        ("= 64", "= 64\nlearning_rate = { lora = inf }", "has the learning_rate inf for 'lora'; write a number above "),
        (
            "= 64",
            "= 64\nlearning_rate = { lroa = 1 }",
            "has a learning_rate for 'lroa', which is no tuning; write one ",
        ),
        (
            "= 64",
            '= 64\nlearning_rate = { lora = "x" }',
            "has \"x\" as 'learning_rate.lora'; write a table of numbers ",
        ),
        ("= 64", '= 64\nkind = "speech"', 'has "speech" as \'kind\'; write "causal", "encoder" or '),
        ("= 64", '= 64\nquantization = "int3"', 'has "int3" as \'quantization\'; write "nf4", or leave it out.'),
        (
            '= 64\nserving = { tunings = ["lora"',
            '= 64\nquantization = "nf4"\nserving = { tunings = ["lora", "full"',
            "names the tuning 'full', which moves the base's own weights: quantization = \"nf4\" stores them in 4 bits",
        ),
        ("= 64", '= 64\ndtype = "int8"', 'has "int8" as \'dtype\'; write "float32" or "bfloat16".'),
    ],
)
def test_a_mistake_is_one_sentence_with_what_to_write(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    text = refusal(tmp_path, f'id = "a"\n{GOOD.replace(old, new)}')
    assert said in text
    assert text.count("The base 'a'") == 1 and text.endswith(".")
    assert "Input should" not in text and "pydantic" not in text


def test_the_mistakes_of_all_entries_are_said_at_once(tmp_path: Path) -> None:
    wrong = GOOD.replace("64", "1")
    text = refusal(tmp_path, f'id = "a"\n{GOOD.replace("lora", "x")}', GOOD, f'id = "c"\n{wrong}')
    assert "The base 'a' names 'x'" in text
    assert "Base number 2 has no 'id'; write a name of letters" in text
    assert "The base 'c' has 1 as 'context_tokens'" in text


def test_a_context_beyond_the_models_own_is_refused_where_the_folder_is_local(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"max_position_embeddings": 32}))
    text = refusal(tmp_path, f'id = "a"\n{GOOD.replace("hub/x", "model")}')
    assert text == "The base 'a' has 64 context_tokens, but its config.json says 32; write at most that."


@pytest.mark.parametrize(
    "source", ["./modle", "../else/where", "models/tiny", "/no/such/folder", "modle", "a/b/c", "models/"]
)
def test_a_missing_folder_is_never_taken_for_a_hub_id(tmp_path: Path, source: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "model").mkdir()
    path = tmp_path / "bases.toml"
    path.write_text(f'[[base]]\nid = "a"\n{GOOD.replace("hub/x", source)}')
    (base,) = read_catalogue(path).named([])
    assert Path(base.source).is_absolute()
    (problem, *_) = folder_problems(base)
    assert problem.startswith("The base 'a' has no ") and base.source in problem


@pytest.mark.parametrize("source", ["Qwen/Qwen2.5-0.5B-Instruct", "gpt2", "HuggingFaceTB/SmolLM2-135M"])
def test_a_hub_id_stays_one(tmp_path: Path, source: str) -> None:
    (tmp_path / "models").mkdir()
    path = tmp_path / "bases.toml"
    path.write_text(f'[[base]]\nid = "a"\n{GOOD.replace("hub/x", source)}')
    (base,) = read_catalogue(path).named([])
    assert base.source == source and folder_problems(base) == []


def test_half_a_folder_is_said_by_what_it_lacks(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    base = Base(id="a", source=str(folder), context_tokens=64, serving=Serving(tunings=frozenset({"lora"})))
    (folder / "pytorch_model.bin").touch()
    said = folder_problems(base)
    assert ["config.json" in said[0], "convert them" in said[1], "no tokenizer" in said[2]] == [True] * 3
    (folder / "config.json").write_text("{")  # half a file
    assert folder_problems(base) == said
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").touch()
    (folder / "tokenizer.json").touch()
    assert (folder_problems(base), has_chat_template(base)) == ([], False)
    (folder / "chat_template.jinja").touch()
    assert has_chat_template(base) is True


def test_a_word_that_is_no_base_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bases.toml"
    path.write_text(f'[[base]]\nid = "a"\n{GOOD}[[bases]]\nid = "b"\n')
    with pytest.raises(CatalogueError, match=r"It has 'bases', which is nothing; write \[\[base\]\]\."):
        read_catalogue(path)
