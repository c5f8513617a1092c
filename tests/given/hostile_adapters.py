"""Adapters that somebody rewrote: each entry changes a good folder so that no program may take it as it is."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def config_of(**change: object) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | change))

    return rewrite


def content(text: str) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        (folder / CONFIG).write_text(text)

    return rewrite


def weights_of(value: float) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        name = sorted(tensors)[-1]
        changed = tensors[name].clone()
        changed.view(-1)[-1] = value
        save_file({**tensors, name: changed}, folder / WEIGHTS, metadata={"format": "pt"})

    return rewrite


REWRITTEN: dict[str, Callable[[Path], None]] = {
    "NaN": weights_of(torch.nan),
    "infinity": weights_of(torch.inf),
    "nested": content("[" * 100_000),
    "nested object": content('{"peft_type":' * 50_000),
    "giant": content('{"peft_type": "LORA", "x": "' + "x" * 2_000_000 + '"}'),
    "array": content("[]"),
    "null": content("null"),
    "rank of text": config_of(r="eight"),
    "rank of 0": config_of(r=0),
    "rank below 0": config_of(r=-1),
    "rank of a list": config_of(r=[4]),
    "rank of many digits": config_of(r=10**400),
    "alpha of text": config_of(lora_alpha="x"),
    "targets of numbers": config_of(target_modules=[1, 2]),
    "type of a list": config_of(peft_type=["LORA"]),
}
