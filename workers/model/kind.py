"""What kind of base a folder holds, by its config alone, and how a base of each kind is loaded.

Does not depend on jobs or tunings; `workers.model.load` and `workers.model.describe` call it.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from service.recipes.tasks import BaseKind

_CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # ends of the classes' names in config.json
_LOADERS: Mapping[BaseKind, Any] = {
    "causal": AutoModelForCausalLM,
    "encoder": AutoModel,
    "encoder-decoder": AutoModelForSeq2SeqLM,
}
POOLER = "pooler"  # BERT's layer after the last one, for the task it was pre-trained on; no objective reads it


def kind_of(config: PreTrainedConfig) -> BaseKind:
    """The kind of the model whose config this is. Raises ValueError for one that reads no text, or is of no such kind.

    Some architectures exist in two kinds (BERT as a decoder): the class that was saved decides.
    """
    if config.is_encoder_decoder:
        return "encoder-decoder"
    saved, family = config.architectures or [], config.model_type
    if any(name.endswith(_CAUSAL) for name in saved):
        return "causal"
    if family in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "encoder"
    if family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "causal"
    raise ValueError(
        f"config.json says the model type '{family}', which is neither a causal language model nor an encoder or "
        "encoder-decoder of text"
    )


def empty_model(kind: BaseKind, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The architecture on torch's meta device: shapes without numbers. Raises ValueError for one that is unknown.

    Its attention is the plain one, since the others look at the numbers of a mask. `config` stays as it is: it may be
    that of a model that computes.
    """
    with torch.device("meta"):
        options = {"dtype": dtype, "trust_remote_code": False, "attn_implementation": "eager"}
        model = _LOADERS[kind].from_config(copy.deepcopy(config), **options)
    assert isinstance(model, PreTrainedModel)
    _without_pooler(kind, model)
    return model


def _without_pooler(kind: BaseKind, model: PreTrainedModel) -> None:
    if kind == "encoder" and dict(model.named_children()).get(POOLER) is not None:
        model.register_module(POOLER, None)


def load_model(kind: BaseKind, source: str, revision: str | None, options: Mapping[str, Any]) -> PreTrainedModel:
    """The weights in their architecture. Raises OSError or ValueError, also where weights are missing.

    A missing weight would be drawn at random, differently in every process. An encoder's pooler is left out.
    """
    model, report = _LOADERS[kind].from_pretrained(source, revision=revision, output_loading_info=True, **options)
    assert isinstance(model, PreTrainedModel)
    _without_pooler(kind, model)
    missing = sorted(name for name in report["missing_keys"] if kind != "encoder" or not name.startswith(POOLER))
    if missing:
        raise ValueError(
            f"its files lack {len(missing)} weights of {type(model).__name__}, such as {missing[0]}: copy the whole "
            "model, or one that was saved as this class"
        )
    return model
