"""The tokens at which vLLM stops: those that end a trained turn, beside those that the base's own settings name.

A chat template may end answers with a token that neither generation_config.json nor the tokenizer calls an end, such as
ChatML's on a base that only continued texts; then vLLM would continue behind the tuned model's answer. So vLLM is given
a generation_config.json of ours, which has the end tokens alone: sampling stays OpenAI's. Runs in vLLM's environment
before vLLM starts, and needs no torch.
"""

import json
from pathlib import Path

from transformers import AutoTokenizer, GenerationConfig

from service.recipes.base import Base
from workers.data.base_text import BaseText
from workers.data.template import ChatTemplate

FILE = "generation_config.json"


def end_ids(base: Base) -> list[int]:
    """As the embedded engine has them. Raises OSError or ValueError for a base whose tokenizer cannot be read."""
    where = {"revision": base.revision or None, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(base.source, **where)
    try:
        named = GenerationConfig.from_pretrained(base.source, revision=base.revision or "main").eos_token_id
    except OSError:  # it has none
        named = None
    ends = named if isinstance(named, list) else [named]
    return sorted(ChatTemplate(BaseText(tokenizer, frozenset(id for id in ends if id is not None))).end_ids)


def write_ends(base: Base, folder: Path) -> None:
    """Makes the folder that vLLM's --generation-config names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps({"eos_token_id": end_ids(base)}), encoding="utf-8")
