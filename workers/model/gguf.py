"""A GGUF file as the folder that trainers and engines load: plain weights in safetensors, config and tokenizer.

Adapters are trained on plain weights, so the file's blocks are dequantised, once. Called for `luthierd bases add`.
"""

import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

MISSING = "needs the package gguf: install `luthier[gguf]`, or `pip install gguf`"


def dequantise(file: Path, folder: Path, dtype: torch.dtype) -> None:
    """Writes `folder`, whole or not at all. Raises OSError, ValueError, or ImportError without the package gguf."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as beside:
        written = Path(beside) / "base"
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer.save_pretrained(written)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=dtype
        )
        model.save_pretrained(written)
        written.rename(folder)


def named_licence(file: Path) -> str | None:
    """The licence that the file names, such as apache-2.0. Raises ImportError without the package gguf."""
    from gguf import GGUFReader  # noqa: PLC0415  optional

    field = GGUFReader(file).get_field("general.license")
    return None if field is None else str(field.contents())
