"""A LoRA that PEFT itself made and saved, as somebody who never used this service has one."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from service.recipes.base import Base


def save_peft_lora(base: Base, folder: Path, seed: int = 0, **config: Any) -> Path:
    """Random numbers everywhere, as after a training, in PEFT's files and whatever it writes beside them."""
    model = AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32)
    given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **config}
    tuned = get_peft_model(model, LoraConfig(**given))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    tuned.save_pretrained(str(folder))
    return folder
