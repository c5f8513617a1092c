"""What the catalogue should say about a base, read from its own files: config, tokenizer, model card.

`luthier-worker describe` prints it as JSON for `luthierd bases add`. Of a hub's base no weights are fetched here.
"""

from pathlib import Path

import torch
import yaml
from huggingface_hub import metadata_load
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils.hub import cached_file

from service.recipes.base import Base, Serving
from service.recipes.base_description import BaseDescription, Dtype
from service.recipes.base_folder import folder_problems
from workers.model.fast_dtype import bfloat16_is_faster
from workers.model.gguf import MISSING, dequantise, named_licence, parsed_once
from workers.model.kind import kind_of
from workers.model.load import BaseUnusable, commit_of, load_text

LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
LICENCE_LETTERS = 100


def describe(source: str, device: torch.device, folder: Path) -> BaseDescription:
    """`source`: a hub id, or the absolute path of a folder or of a GGUF file, which becomes `folder`.

    Raises BaseUnusable, in one sentence.
    """
    try:
        return _described(source, device, folder)
    except BaseUnusable:
        raise
    except ImportError as error:
        raise BaseUnusable(f"{source} {MISSING}") from error
    except Exception as error:  # as many kinds as a base that is loaded raises
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise BaseUnusable(f"{source} cannot be read as a base ({type(error).__name__}): {reason}") from error


def longest_context(config: PreTrainedConfig) -> int | None:
    """How many tokens the model reads at most; None where it names no limit."""
    text = config.get_text_config()
    name = text.attribute_map.get("max_position_embeddings", "max_position_embeddings")  # GPT-2 says n_positions
    found = text.to_dict().get(name)
    return found if isinstance(found, int) else None


def _described(source: str, device: torch.device, folder: Path) -> BaseDescription:
    licence = None
    if source.endswith(".gguf"):
        with parsed_once():
            licence = named_licence(Path(source))
            dequantise(Path(source), folder, torch.float32 if device.type == "cpu" else torch.bfloat16)
        source = str(folder)
    base = Base(id="described", source=source, context_tokens=16, serving=Serving(tunings=frozenset()))
    if problems := folder_problems(base):
        raise BaseUnusable(" ".join(problems))
    commit = commit_of(base)
    base = base.model_copy(update={"revision": commit or ""})
    config = AutoConfig.from_pretrained(source, revision=commit, trust_remote_code=False)
    return BaseDescription(
        source=source,
        revision=base.revision,
        kind=kind_of(config),
        dtype=_dtype(config, device),
        device=device.type,
        context_tokens=longest_context(config),
        chat_template=bool(load_text(base).tokenizer.chat_template),
        licence=licence or _licence(source, commit),
    )


def _dtype(config: PreTrainedConfig, device: torch.device) -> Dtype:
    """float32 for weights that were stored so, and on a CPU that computes the base's shapes no faster in bfloat16."""
    stored = config.get_text_config().dtype or config.dtype
    if stored == torch.float32:
        return "float32"
    return "bfloat16" if device.type != "cpu" or bfloat16_is_faster(config) else "float32"


def _licence(source: str, commit: str | None) -> str | None:
    """By the model card's front matter, else the first line of the licence's own file."""
    card = _file(source, commit, "README.md")
    try:
        metadata = (metadata_load(card) if card else None) or {}
    except (ValueError, yaml.YAMLError):  # a card that somebody wrote by hand
        metadata = {}
    if isinstance(named := metadata.get("license_name") or metadata.get("license"), str):
        return named
    for name in LICENCE_FILES:
        if file := _file(source, commit, name):
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            return next((line.strip()[:LICENCE_LETTERS] for line in lines if line.strip()), None)
    return None


def _file(source: str, commit: str | None, name: str) -> Path | None:
    """One file of the folder or of the hub's commit."""
    found = cached_file(source, name, revision=commit, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)
