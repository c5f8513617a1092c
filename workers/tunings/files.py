"""Reads and writes an adapter's folder in PEFT's own format, with equal bytes for equal weights."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from service.domain.json import JsonObject
from workers.tunings.base import AdapterMismatch

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
CONFIG_LIMIT_BYTES = 1024 * 1024
_PRIVATE = 0o600


def task_type(model: PreTrainedModel) -> str:
    """What the base does, in PEFT's words."""
    if model.config.is_encoder_decoder:
        return "SEQ_2_SEQ_LM"
    is_encoder = model.get_output_embeddings() is None  # type: ignore[no-untyped-call]
    return "FEATURE_EXTRACTION" if is_encoder else "CAUSAL_LM"


def write_adapter(folder: Path, config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    """Writes both files; a tuning that is not in PEFT has a `peft_type` of its own.

    PEFT's own writer is not used: it writes sets in an order that differs between processes.
    """
    text = json.dumps(config, indent=2, sort_keys=True, default=sorted)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, folder / WEIGHTS, metadata={"format": "pt"})
    for name in (CONFIG, WEIGHTS):
        (folder / name).chmod(_PRIVATE)


def read_config(folder: Path) -> JsonObject:
    """The adapter's config as saved. Raises AdapterMismatch if it is missing or not JSON."""
    path = folder / CONFIG
    try:
        if path.stat().st_size > CONFIG_LIMIT_BYTES:
            raise AdapterMismatch(f"{CONFIG} has more than {CONFIG_LIMIT_BYTES:,} bytes.")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError) as error:
        raise AdapterMismatch(f"{CONFIG} is missing or not JSON.") from error
    if not isinstance(config, dict):
        raise AdapterMismatch(f"{CONFIG} is not a JSON object.")
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The saved tensors, on the CPU. Raises AdapterMismatch if they are missing, corrupt, or not all finite numbers."""
    try:
        tensors: dict[str, Tensor] = load_file(folder / WEIGHTS)
    except (FileNotFoundError, SafetensorError) as error:
        raise AdapterMismatch(f"{WEIGHTS} is missing or corrupt.") from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise AdapterMismatch(f"The saved '{name}' has values that are not finite numbers.")
    return tensors
