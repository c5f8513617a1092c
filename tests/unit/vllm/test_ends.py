"""vLLM stops where training ends a turn: also at a token that only the chat template ends answers with."""

import json
from pathlib import Path

import pytest

from tests.given.tiny_models import make_tiny_base, write_chat_template
from workers.data.template import ChatTemplate
from workers.engines.vllm.ends import write_ends
from workers.model.load import load_text
from workers.toy_base.tokenizer import SPECIAL_TOKENS

END, SYSTEM, ASSISTANT = (SPECIAL_TOKENS.index(token) for token in ("<|end|>", "<|system|>", "<|assistant|>"))
CLOSED_BY_SYSTEM = (
    "{%- for message in messages -%}{{- '<|' ~ message['role'] ~ '|>' ~ message['content'] ~ '<|system|>' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


@pytest.mark.parametrize(("named", "ends"), [([END, ASSISTANT], [END, SYSTEM, ASSISTANT]), (None, [END, SYSTEM])])
def test_the_ends_are_those_of_the_template_of_the_settings_and_of_the_tokenizer(
    tmp_path: Path, named: list[int] | None, ends: list[int]
) -> None:
    base = make_tiny_base(tmp_path / "base")
    write_chat_template(tmp_path / "base", CLOSED_BY_SYSTEM)
    settings = tmp_path / "base" / "generation_config.json"
    settings.write_text(json.dumps({"eos_token_id": named, "temperature": 0.3}))
    if named is None:
        settings.unlink()
    write_ends(base, tmp_path / "generation")
    written = json.loads((tmp_path / "generation" / "generation_config.json").read_text())
    assert written == {"eos_token_id": ends}  # and no sampling of the base's own
    assert sorted(ChatTemplate(load_text(base)).end_ids) == ends  # as the embedded engine stops
