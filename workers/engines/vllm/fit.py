"""Whether this vLLM can serve an artifact, checked before it loads the files: it would return 500 or misread them.

vLLM 0.32's own checks are in its `lora/peft_helper.py`. Reads manifests and PEFT's files; does not import vLLM.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from service.domain.json import JsonObject
from service.domain.model import Manifest
from service.recipes.base import Base
from service.recipes.catalogue import served_by

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
OUTPUT_LAYER = "lm_head"  # vLLM's name for it, in every model; no tuning of ours changes it
# Of PEFT's LoraConfig: any of these that is set and not false, empty or null changes what the adapter computes.
UNSERVED = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "layer_replication",
    "use_bdlora",
    "use_qalora",
    "target_parameters",
)
STARTS = (True, False, "gaussian", "orthogonal")  # of `init_lora_weights`; others change the base's own weights


class Unservable(Exception):
    """This vLLM cannot serve the artifact; the message says why."""


def check_manifest(base: Base, manifest: Manifest) -> None:
    """Raises Unservable for an artifact of another base or of a tuning that vLLM does not have."""
    if manifest.base != base.id:
        raise Unservable(f"It belongs to the base '{manifest.base}'; this engine serves '{base.id}'.")
    if manifest.tuning not in served_by("vllm"):
        raise Unservable(f"vLLM does not serve the tuning '{manifest.tuning}'.")


def check_folder(base: Base, folder: Path) -> None:
    """Raises Unservable for a configuration that this vLLM cannot serve as it was trained."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, json.JSONDecodeError) as error:
        raise Unservable(f"{CONFIG} cannot be read.") from error
    if config.get("peft_type") != "LORA":
        raise Unservable(f"{CONFIG} is of the type {config.get('peft_type')!r}.")
    if config.get("bias", "none") != "none":
        raise Unservable("It has biases.")
    if config.get("init_lora_weights", True) not in STARTS:
        raise Unservable(f"It was created with init_lora_weights={config['init_lora_weights']!r}.")
    asked = [name for name in UNSERVED if config.get(name)]
    if asked:
        raise Unservable(f"vLLM does not do {', '.join(asked)}.")
    rank = _highest_rank(config)
    if rank > base.serving.max_rank:
        raise Unservable(f"Its rank is {rank}; the engine serves ranks up to {base.serving.max_rank}.")
    if any(OUTPUT_LAYER in name.split(".") for name in _tensors(folder)):
        raise Unservable("It changes the output layer, of which vLLM mixes up the rows of scored prompts.")


def _tensors(folder: Path) -> list[str]:
    """Names of the adapter's tensors, without reading these."""
    try:
        with safe_open(folder / WEIGHTS, framework="numpy") as weights:
            return list(weights.keys())
    except (OSError, SafetensorError) as error:
        raise Unservable(f"{WEIGHTS} cannot be read.") from error


def _highest_rank(config: JsonObject) -> int:
    return max(int(config["r"]), *map(int, config.get("rank_pattern", {}).values() or [0]))
