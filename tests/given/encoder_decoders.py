"""Tiny random encoder-decoders: as models in memory, as real folders, and rows of random tokens for them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from service.recipes.base import Base, Serving
from tests.given.tiny_models import CONTEXT_TOKENS, VOCABULARY
from workers.data.base_text import BaseText
from workers.data.tokenized import DatasetBuilder, TokenizedDataset
from workers.model.load import LoadedBase, weights_digest
from workers.toy_base.tokenizer import END, SPECIAL_TOKENS, save_tokenizer, train_tokenizer

START = 0  # the padding token, as T5 has it
_SPECIAL = {"pad_token_id": START, "eos_token_id": SPECIAL_TOKENS.index(END), "decoder_start_token_id": START}
_NEW: Mapping[str, Callable[[], PreTrainedModel]] = {
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_decoder_layers=2, num_heads=4,
            feed_forward_proj="gated-gelu", initializer_factor=0.5, **_SPECIAL,
        )
    ),
    "bart": lambda: BartForConditionalGeneration(
        BartConfig(
            vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=CONTEXT_TOKENS,
            init_std=0.2, bos_token_id=1, **_SPECIAL,
        )
    ),
}  # fmt: skip
ENCODER_DECODERS = ("t5",)  # those that can be trained and served


def make_tiny_encoder_decoder(folder: Path, family: str = "t5") -> Base:
    """Writes the folder of a base without a chat template, whose tokenizer ends each text; its catalogue entry."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _new(family).save_pretrained(folder)
    save_tokenizer(_tokenizer(), folder, CONTEXT_TOKENS)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": None}))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return Base(
        id="tiny",
        kind="encoder-decoder",
        source=str(folder),
        context_tokens=CONTEXT_TOKENS,
        learning_rate={"lora": 1e-2},
        serving=Serving(tunings=frozenset({"lora"})),
    )


def load_encoder_decoder(family: str) -> LoadedBase:
    """The model as a base for a slot of the trainer, the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _new(family).eval().requires_grad_(False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(), eos_token=END)
    return LoadedBase(
        public_source=family,
        model=model,
        tokenizer=tokenizer,
        revision="0",
        hashes={"weights": weights_digest(model)},
        device=torch.device("cpu"),
        text=BaseText(tokenizer, frozenset({_SPECIAL["eos_token_id"]}), VOCABULARY, START),
        kind="encoder-decoder",
    )


def two_sided_rows(num_rows: int, seed: int = 0, longest: int = 12) -> TokenizedDataset:
    """Pairs of random sequences of random lengths; the decoder's are trained, but for the start token."""
    numbers = np.random.RandomState(seed)
    return two_sided([[_random(numbers, longest), _random(numbers, longest)] for _ in range(num_rows)])


def two_sided(pairs: Sequence[Sequence[Sequence[int]]]) -> TokenizedDataset:
    """What the encoder reads and what the decoder writes after its start token."""
    builder = DatasetBuilder()
    for read, written in pairs:
        builder.add([START, *written], [0] + [1] * len(written), second=read)
    return builder.build()


def shifted(ids_BT: Tensor) -> Tensor:
    """The decoder's input for these tokens."""
    return torch.cat([torch.full_like(ids_BT[:, :1], START), ids_BT[:, :-1]], dim=1)


@torch.no_grad()
def _new(family: str) -> PreTrainedModel:
    """Its blocks say more than its embeddings, which are tied to the output: else it would repeat what it reads.

    The tied output divides by the root of the width, so that small embeddings allow no token much of the probability,
    whatever is learned; a larger last norm does.
    """
    model = _NEW[family]()
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2 and ".block." in name:
            parameter.mul_(3.0)
        elif name == "decoder.final_layer_norm.weight":
            parameter.mul_(8.0)
    return model


def _random(numbers: np.random.RandomState, longest: int) -> list[int]:
    return [int(id) for id in numbers.randint(len(SPECIAL_TOKENS), VOCABULARY, numbers.randint(3, longest + 1))]


def _tokenizer() -> Tokenizer:
    tokenizer = train_tokenizer([], VOCABULARY)
    tokenizer.post_processor = TemplateProcessing(single=f"$A {END}", special_tokens=[(END, SPECIAL_TOKENS.index(END))])
    return tokenizer
