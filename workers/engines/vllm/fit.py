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
CONFIG_LIMIT_BYTES = 1024 * 1024
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
    if manifest.served_tuning not in served_by("vllm"):
        raise Unservable(f"vLLM does not serve the tuning '{manifest.served_tuning}'.")


def check_folder(base: Base, folder: Path) -> None:
    """Raises Unservable for a configuration that this vLLM cannot serve as it was trained."""
    config = _config(folder)
    try:
        _check_config(base, config)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise Unservable(f"{CONFIG} has values of the wrong type ({type(error).__name__}).") from error
    _check_tensors(folder)


def _config(folder: Path) -> JsonObject:
    path = folder / CONFIG
    try:
        if path.stat().st_size > CONFIG_LIMIT_BYTES:
            raise Unservable(f"{CONFIG} has more than {CONFIG_LIMIT_BYTES:,} bytes.")
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Unservable(f"{CONFIG} cannot be read.") from error
    if not isinstance(config, dict):
        raise Unservable(f"{CONFIG} is not a JSON object.")
    return config


def _check_config(base: Base, config: JsonObject) -> None:
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


def _check_tensors(folder: Path) -> None:
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118  it is not a dict
                if OUTPUT_LAYER in name.split("."):
                    raise Unservable("It changes the output layer, of which vLLM mixes up the rows of scored prompts.")
                if not weights.get_tensor(name).isfinite().all():
                    raise Unservable(f"Its '{name}' has values that are not finite numbers.")
    except (OSError, SafetensorError) as error:
        raise Unservable(f"{WEIGHTS} cannot be read.") from error


def _highest_rank(config: JsonObject) -> int:
    return max(int(config["r"]), *map(int, config.get("rank_pattern", {}).values() or [0]))
