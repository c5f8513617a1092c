"""Tiny random models of several architectures, made in memory: what a tuning meets in the bases of strangers."""

import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from workers.data.base_text import BaseText
from workers.model.load import LoadedBase, weights_digest
from workers.toy_base.tokenizer import SPECIAL_TOKENS, train_tokenizer

torch.set_num_threads(1)  # as `tests.given.tiny_models`; bits depend on it
FAMILY_VOCABULARY = 97
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "mixtral", "bloom", "gemma", "gpt2")

# ids_BT of some rows without padding, which no token of a tokenizer's own is part of.
ROWS = torch.randint(3, FAMILY_VOCABULARY, (4, 11), generator=torch.Generator().manual_seed(0))


def make_family(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A frozen model in eval mode, the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _new(name).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(3.0)  # random weights are so small that effects vanish
    return torch.nn.Module.to(model, dtype)


def _new(name: str) -> PreTrainedModel:
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    sizes = {
        "vocab_size": FAMILY_VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
    }
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(**sizes, **special))
    if name == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**sizes, **special))
    if name == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**sizes, **special))
    if name == "mistral":
        return MistralForCausalLM(MistralConfig(**sizes, **special))
    if name == "mixtral":
        return MixtralForCausalLM(MixtralConfig(**sizes, **special, num_local_experts=4, num_experts_per_tok=2))
    if name == "gemma":
        return GemmaForCausalLM(GemmaConfig(**sizes, **special))
    if name == "bloom":
        return BloomForCausalLM(
            BloomConfig(vocab_size=FAMILY_VOCABULARY, hidden_size=32, n_layer=2, n_head=4, **special)
        )
    assert name == "gpt2"
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=FAMILY_VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, **special)
    )


def load_family(name: str, dtype: torch.dtype = torch.float32) -> LoadedBase:
    """The model as a base for a slot of the trainer, with a tokenizer of bytes that nothing here uses for text."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=train_tokenizer([], 256 + len(SPECIAL_TOKENS)))
    model = make_family(name, dtype)
    return LoadedBase(
        public_source=name,
        model=model,
        tokenizer=tokenizer,
        revision="0",
        hashes={"weights": weights_digest(model)},
        device=torch.device("cpu"),
        text=BaseText(tokenizer, frozenset({2}), FAMILY_VOCABULARY),
    )
