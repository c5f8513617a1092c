"""Reads and writes an adapter's folder in PEFT's own format, with equal bytes for equal weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from workers.tunings.base import AdapterMismatch

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_READABLE = 0o644  # engines and trainer may run as different users


def write_adapter(folder: Path, config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    """Writes both files; a tuning that is not in PEFT has a `peft_type` of its own.

    PEFT's own writer is not used: it writes sets in an order that differs between processes.
    """
    text = json.dumps(config, indent=2, sort_keys=True, default=sorted)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, folder / WEIGHTS, metadata={"format": "pt"})
    for name in (CONFIG, WEIGHTS):
        (folder / name).chmod(_READABLE)


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's config as saved. Raises AdapterMismatch if it is missing or not JSON."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise AdapterMismatch(f"{CONFIG} is missing or not JSON.") from error
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The saved tensors, on the CPU. Raises AdapterMismatch if they are missing or corrupt."""
    try:
        tensors: dict[str, Tensor] = load_file(folder / WEIGHTS)
    except (FileNotFoundError, SafetensorError) as error:
        raise AdapterMismatch(f"{WEIGHTS} is missing or corrupt.") from error
    return tensors
