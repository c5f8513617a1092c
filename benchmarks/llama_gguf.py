"""A Llama of transformers as a GGUF file in float32, for llama.cpp in `benchmarks.engine`, which gets tokens, not text.

A token's text in the file is its number: it is of no use but to be measured.
"""

from pathlib import Path

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

_WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_OF_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write(base: Path, file: Path) -> None:
    """Raises AssertionError for a model that is no plain Llama."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = model.config
    assert isinstance(config, LlamaConfig) and config.num_key_value_heads is not None, "a Llama"
    assert config.rope_parameters is not None and config.rope_parameters["rope_type"] == "default"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_tokens(writer, config.vocab_size)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        writer.add_tensor(_named(name), tensor.numpy() if heads is None else _interleaved(tensor, heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _named(name: str) -> str:
    if name in _WHOLE:
        return _WHOLE[name]
    _, _, number, part = name.split(".", 3)
    return f"blk.{number}.{_OF_LAYER[part.removesuffix('.weight')]}.weight"


def _interleaved(weight: Tensor, heads: int) -> NDArray[np.float32]:
    """llama.cpp rotates neighbours, (0, 1), (2, 3), ..., transformers the halves of a head, (0, d/2), ..."""
    outputs, inputs = weight.shape
    halves = weight.view(heads, 2, outputs // heads // 2, inputs)
    interleaved: NDArray[np.float32] = halves.transpose(1, 2).reshape(outputs, inputs).contiguous().numpy()
    return interleaved


def _add_tokens(writer: gguf.GGUFWriter, count: int) -> None:
    """A token's text is its number. llama.cpp never writes the end token that it is told to ignore: it gets the first,
    which no model here writes, as its end."""
    kinds = gguf.TokenType
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"t{number}" for number in range(count)])
    writer.add_token_scores([0.0] * count)
    writer.add_token_types([kinds.UNKNOWN, *[kinds.NORMAL] * (count - 1)])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(0)
