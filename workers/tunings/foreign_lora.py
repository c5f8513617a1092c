"""A LoRA's configuration by whoever made it: which keys of PEFT's are understood here, and the rest refused by name.

PEFT's configuration names many variants of LoRA. One that is passed over would be served as something else, so every
key is one of three: read, of no effect on what the adapter computes, or to be left at PEFT's own "not used".
"""

from typing import Any

from pydantic import ValidationError

from service.recipes.tunings.lora import LoraSettings
from workers.tunings.base import AdapterMismatch
from workers.tunings.lora import LoraTuning

REQUIRED = ("peft_type", "r", "lora_alpha", "target_modules")
DEFAULTS = {
    "lora_dropout": 0.0,
    "use_dora": False,
    "use_rslora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "init_lora_weights": True,
}
# How A and B began, where the base's own weights stayed as they are: of no meaning once they are trained.
BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal")
WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config", "fan_in_fan_out",
        "inference_mode", "layers_pattern", "megatron_core", "peft_version", "qalora_group_size", "revision",
        "runtime_config",
    }
)  # fmt: skip
UNUSED = frozenset(
    {
        "alora_invocation_tokens", "arrow_config", "corda_config", "exclude_modules", "kasa_config",
        "layer_replication", "layers_to_transform", "loftq_config", "lora_bias", "lora_ga_config", "megatron_config",
        "modules_to_save", "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora",
        "use_qalora", "velora_config",
    }
)  # fmt: skip
_NAMES = {"alpha": "lora_alpha", "dropout": "lora_dropout", "init": "init_lora_weights"}  # of settings, in PEFT's file


def settings_of_foreign(config: dict[str, Any]) -> LoraSettings:
    """The settings of the adapter with this configuration. Raises AdapterMismatch, which names the key."""
    if missing := [key for key in REQUIRED if key not in config]:
        raise AdapterMismatch(f"adapter_config.json has no '{missing[0]}'.")
    if config["peft_type"] != LoraSettings.peft_type:
        raise AdapterMismatch("adapter_config.json is not a LoRA's: its 'peft_type' must be \"LORA\".")
    for key, value in config.items():
        _check(key, value)
    known = {**DEFAULTS, **config}
    beginning = "gaussian" if known["init_lora_weights"] == "gaussian" else True
    try:
        return LoraTuning.settings_of({**known, "init_lora_weights": beginning})
    except ValidationError as error:
        found = error.errors()[0]
        name = str(found["loc"][0]) if found["loc"] else ""
        raise AdapterMismatch(f"adapter_config.json: '{_NAMES.get(name, name)}' is invalid: {found['msg']}.") from error


def _check(key: str, value: object) -> None:
    if key in REQUIRED or key in WITHOUT_EFFECT:
        return
    if key == "init_lora_weights":
        if not isinstance(value, bool | str) or value not in BEGINNINGS:
            raise AdapterMismatch(
                f"adapter_config.json: 'init_lora_weights' is {_shown(value)}, which changes the base's own weights. "
                "Convert the adapter to an ordinary LoRA first (PEFT: path_initial_model_for_weight_conversion)."
            )
    elif key == "task_type":
        if value not in (None, "CAUSAL_LM"):
            raise AdapterMismatch(
                f"adapter_config.json: 'task_type' is {_shown(value)}; only adapters of causal language models "
                '("CAUSAL_LM") are imported.'
            )
    elif key == "bias":
        if value != "none":
            raise AdapterMismatch("adapter_config.json: 'bias' is not \"none\": trained biases are not imported.")
    elif key in UNUSED:
        if value not in (None, False, "", [], {}):
            raise AdapterMismatch(f"adapter_config.json: '{key}' is used, which this installation cannot serve.")
    elif key not in DEFAULTS:
        raise AdapterMismatch(f"adapter_config.json has the key '{_shown(key)[1:-1]}', which is not known here.")


def _shown(value: object) -> str:
    """A stranger's value, as far as an error message repeats it."""
    return repr(value if isinstance(value, bool | int | float | str) else type(value).__name__)[:80]
