"""vLLM stops where training ends a turn: also at a token that only the chat template ends answers with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.given.running_service import ROOT, write_catalogue
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


def test_they_are_written_before_vllm_starts_without_torch(tmp_path: Path) -> None:
    """As `serve` has it done; torch would be most of what it takes."""
    base = make_tiny_base(tmp_path / "base")
    catalogue = write_catalogue(tmp_path / "bases.toml", base)
    look = (
        "import runpy, sys; runpy.run_module('workers.engines.vllm', run_name='__main__');"
        "print([name for name in sys.modules if name.partition('.')[0] == 'torch'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", look, tmp_path / "generation"], capture_output=True, text=True, check=False, cwd=ROOT,
        env=os.environ | {"LUTHIER_CATALOGUE": str(catalogue), "LUTHIER_ENGINE_BASE": base.id},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    write_ends(base, tmp_path / "expected")
    written = [tmp_path / folder / "generation_config.json" for folder in ("generation", "expected")]
    assert written[0].read_bytes() == written[1].read_bytes()
