"""A GGUF file as the folder that trainers and engines load: plain weights in safetensors, config and tokenizer.

Adapters are trained on plain weights, so the file's blocks are dequantised, once. Called for `luthierd bases add`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

MISSING = "needs the package gguf: install `luthier[gguf]`, or `pip install gguf`"


@contextmanager
def parsed_once() -> Iterator[None]:
    """Inside, a file is parsed at its first reading. Raises ImportError without the package gguf.

    transformers parses it again for the tokenizer, for the config and for the weights, token by token, and lists the
    names of all tensors again for each module: 135 million weights take 10 CPU seconds so, and 25 otherwise.
    """
    import gguf  # noqa: PLC0415  optional

    plain = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, made in plain.items():
            setattr(gguf, name, cache(made))
        yield
    finally:
        for name, made in plain.items():
            setattr(gguf, name, made)


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

    field = GGUFReader(str(file)).get_field("general.license")
    return None if field is None else str(field.contents())
