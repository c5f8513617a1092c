"""What other fine-tuning services and trainers call settings of a job, and how these are written here.

For the message of a 400 only: no such name is accepted, because the same name means other things elsewhere. The names
are those of Hugging Face's TRL and PEFT, Together, Fireworks, Mistral, Vertex AI and Azure.
"""

import re
from collections.abc import Mapping

_LORA = '"tuning": {"type": "lora", "lora": {%s}}'


def _spelled(names: str, spelling: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), spelling)


_SPELLINGS: Mapping[str, str] = {
    **_spelled(
        "n_epochs epochs epoch num_epochs num_train_epochs train_epochs max_epochs epoch_count n_epoch",
        '"n_epochs" in the hyperparameters',
    ),
    **_spelled(
        "batch_size per_device_train_batch_size per_device_batch_size train_batch_size global_batch_size batchsize "
        "mini_batch_size micro_batch_size batch",
        '"batch_size" in the hyperparameters',
    ),
    **_spelled(
        "learning_rate_multiplier learning_rate_multipler lr_multiplier learning_rate lr peak_learning_rate",
        '"learning_rate_multiplier" in the hyperparameters, which multiplies the default rate of base and tuning: '
        "1.0 is that rate, not an absolute one",
    ),
    **_spelled(
        "lora use_lora peft use_peft peft_type peft_config lora_config adapter adapter_type training_type",
        '"tuning": {"type": "lora"} beside the hyperparameters',
    ),
    **_spelled("r lora_r lora_rank rank peft_r adapter_size", _LORA % '"r": 16'),
    **_spelled("alpha lora_alpha peft_alpha", _LORA % '"alpha": 32'),
    **_spelled("dropout lora_dropout peft_dropout", _LORA % '"dropout": 0.05'),
    **_spelled(
        "target_modules lora_target_modules lora_trainable_modules lora_modules",
        _LORA % '"target_modules": "all-linear"',
    ),
    **_spelled("use_dora dora", _LORA % '"use_dora": true'),
    **_spelled(
        "num_virtual_tokens prompt_tuning soft_prompt",
        '"tuning": {"type": "prompt", "prompt": {"num_virtual_tokens": 20}}',
    ),
    **_spelled("ia3 use_ia3", '"tuning": {"type": "ia3"}'),
    **_spelled("full full_finetuning full_fine_tuning full_parameter_training", '"tuning": {"type": "full"}'),
    **_spelled(
        "freeze freeze_layers freeze_trainable_layers num_frozen_layers unfreeze_layers",
        '"tuning": {"type": "partial", "partial": {"parameters": "last:2"}}',
    ),
    **_spelled(
        "beta dpo_beta", '"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1}}}, for preference rows'
    ),
    **_spelled(
        "early_stopping_patience early_stop patience early_stopping_threshold early_stopping_rounds",
        '"early_stopping": {"patience": 1, "min_delta": 0.0, "metric": "full_valid_loss"} in the job itself',
    ),
    **_spelled(
        "load_best_model_at_end metric_for_best_model save_best_only best_model save_total_limit",
        '"checkpoint_selection": "best" in the job itself',
    ),
    **_spelled("training_method", '"method": {"type": "supervised"} or {"type": "dpo"}'),
    **_spelled(
        "loss_type",
        '"method": {"type": "dpo", "dpo": {"hyperparameters": {"loss_type": "ipo"}}}; "kto", "orpo" and "simpo" are '
        "types of the method",
    ),
    **_spelled(
        "simpo_gamma gamma_beta_ratio", '"method": {"type": "simpo", "simpo": {"hyperparameters": {"gamma": 1.0}}}'
    ),
    **_spelled("random_seed random_state data_seed", '"seed" beside the hyperparameters'),
    **_spelled("base_model model_name model_name_or_path", '"model"'),
    **_spelled("train_file training_files dataset train_dataset", '"training_file"'),
    **_spelled("valid_file val_file eval_file validation_files eval_dataset", '"validation_file"'),
    **_spelled(
        "max_steps training_steps num_train_steps", '"n_epochs" in the hyperparameters; there are no steps to set'
    ),
}
_FIXED = frozenset(
    _spelled(
        "warmup_ratio warmup_steps weight_decay lr_scheduler lr_scheduler_type gradient_accumulation_steps packing "
        "fp16 bf16 max_grad_norm max_seq_length max_length optim optimizer load_in_4bit load_in_8bit qlora eval_steps "
        "gradient_checkpointing save_steps logging_steps n_evals n_checkpoints train_on_inputs",
        "",
    )
)
# Fields of a job that are written into its hyperparameters.
_OF_A_JOB = frozenset(
    (
        "seed",
        "suffix",
        "model",
        "training_file",
        "validation_file",
        "metadata",
        "integrations",
        "method",
        "tuning",
        "early_stopping",
        "checkpoint_selection",
        "forgetting_report",
    )
)


def spelling_here(param: str) -> str:
    """A sentence that says how the unknown field `param` of a job is written here; empty if it is of no known dialect.

    `param` is a path, such as `hyperparameters.lora_r`.
    """
    path, _, last = param.rpartition(".")
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", last).lower()
    if path and path.split(".")[0] not in ("hyperparameters", "method", "tuning"):
        return ""
    if name in _OF_A_JOB and path:
        return f" Write it as \"{name}\" in the job itself, not within '{path}'."
    if name in _SPELLINGS:
        return f" Write it as {_SPELLINGS[name]}."
    if name in _FIXED:
        return " It is fixed here (docs/methods.md says how jobs are trained): remove it."
    return ""
