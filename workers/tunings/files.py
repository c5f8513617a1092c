"""An adapter's folder in PEFT's own format, byte for byte the same for the same weights."""

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
_READABLE = 0o644  # engines may run as another user than the trainer


def write_adapter(folder: Path, config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    """Writes both files; a tuning that PEFT does not have gives its own `peft_type`.

    PEFT's own writer lists sets in an order that changes from process to process.
    """
    text = json.dumps(config, indent=2, sort_keys=True, default=sorted)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, folder / WEIGHTS, metadata={"format": "pt"})
    for name in (CONFIG, WEIGHTS):
        (folder / name).chmod(_READABLE)


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's config as it stands in the file. Raises AdapterMismatch when there is none."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise AdapterMismatch(f"{CONFIG} is missing or not JSON.") from error
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The saved tensors, on the CPU. Raises AdapterMismatch when there are none."""
    try:
        tensors: dict[str, Tensor] = load_file(folder / WEIGHTS)
    except (FileNotFoundError, SafetensorError) as error:
        raise AdapterMismatch(f"{WEIGHTS} is missing or broken.") from error
    return tensors
