"""A base is tried before it is used: what is wrong with it is said in sentences, and a whole one passes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from service.recipes.base import Base
from tests.given.tiny_models import make_tiny_base
from workers.trainer.process.trial import TrialResult, try_base


def tried(base: Base) -> list[TrialResult]:
    return list(try_base(base, torch.device("cpu")))


def problems(base: Base) -> str:
    (found,) = [finding.message for finding in tried(base) if finding.state == "problem"]
    return found


def change(folder: Path, name: str, **values: Any) -> None:
    written = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**written, **values}))


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return make_tiny_base(tmp_path / "tiny")


def test_a_whole_base_loads_renders_trains_and_answers(base: Base) -> None:
    found = tried(base)
    assert {finding.state for finding in found} == {"ok"}
    said = " ".join(finding.message for finding in found)
    for part in ("loads: ", "context: 256", "completions: ", "chat: ", "generates: "):
        assert part in said
    for tuning in base.serving.tunings:
        assert f"{tuning}: one step trains, loss " in said and "learning rate" in said


def test_a_base_that_is_packed_in_4_bits_is_tried_so(base: Base) -> None:
    found = tried(base.model_copy(update={"quantization": "nf4"}))
    assert {finding.state for finding in found} == {"ok"}
    assert "packed as nf4" in " ".join(finding.message for finding in found)


def test_a_base_without_a_template_is_warned_and_still_tried(base: Base) -> None:
    folder = Path(base.source)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    change(folder, "tokenizer_config.json", chat_template=None)
    found = tried(base)
    assert [finding.message[:16] for finding in found if finding.state != "ok"] == ["no chat template"]
    assert found[-1].message.startswith("generates: ")


def test_an_unknown_architecture_is_one_sentence(base: Base) -> None:
    change(Path(base.source), "config.json", model_type="nobodys", architectures=["NobodysForCausalLM"])
    said = problems(base)
    assert "The base 'tiny' cannot be loaded" in said and "nobodys" in said and "\n" not in said


def test_a_context_beyond_the_models_own_is_a_problem(base: Base) -> None:
    assert "write at most that" in problems(base.model_copy(update={"context_tokens": 4096}))


def test_a_parser_for_tools_that_the_template_does_not_show_is_a_problem(base: Base) -> None:
    serving = base.serving.model_copy(update={"tool_call_parser": "hermes"})
    assert "the template shows no tools" in problems(base.model_copy(update={"serving": serving}))
    template = "{{ tools | tojson if tools else '' }}{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
    change(Path(base.source), "tokenizer_config.json", chat_template=template)
    (Path(base.source) / "chat_template.jinja").unlink(missing_ok=True)
    vllm = serving.model_copy(update={"engine": "vllm", "max_rank": 64, "tunings": frozenset({"lora"})})
    found = tried(base.model_copy(update={"serving": vllm}))
    assert not [finding for finding in found if "parser" in finding.message]
    (costly,) = [finding.message for finding in found if finding.state == "warning"]
    assert "max_rank is 64" in costly and "write the highest rank that jobs need" in costly


def test_a_missing_folder_is_one_sentence(base: Base) -> None:
    assert "has no folder" in problems(base.model_copy(update={"source": f"{base.source}y"}))
