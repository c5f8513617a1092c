"""Tiny random encoders as real folders, and rows of random tokens that have labels."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from service.recipes.base import Base, Serving
from tests.given.tiny_models import CONTEXT_TOKENS, VOCABULARY
from workers.data.base_text import BaseText
from workers.data.tokenized import DatasetBuilder, TokenizedDataset
from workers.model.load import LoadedBase, weights_digest
from workers.toy_base.tokenizer import BEGIN, END, SPECIAL_TOKENS, save_tokenizer, train_tokenizer

_NEW: Mapping[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertModel(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=CONTEXT_TOKENS,
            initializer_range=0.2,
        )
    ),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(
            vocab_size=VOCABULARY,
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=64,
            max_position_embeddings=CONTEXT_TOKENS,
            initializer_range=0.2,
        )
    ),
}
ENCODERS = tuple(_NEW)


def make_tiny_encoder(folder: Path, family: str = "bert") -> Base:
    """Writes the folder of an encoder that reads bytes, begin and end tokens around them; its catalogue entry."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _NEW[family]().save_pretrained(folder)
    tokenizer = train_tokenizer([], VOCABULARY)
    ends = [(token, SPECIAL_TOKENS.index(token)) for token in (BEGIN, END)]
    tokenizer.post_processor = TemplateProcessing(single=f"{BEGIN} $A {END}", special_tokens=ends)
    save_tokenizer(tokenizer, folder, CONTEXT_TOKENS)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": None}))
    return Base(
        id="tiny",
        kind="encoder",
        source=str(folder),
        context_tokens=CONTEXT_TOKENS,
        learning_rate={"lora": 1e-2},
        serving=Serving(tunings=frozenset({"lora"})),
    )


def load_encoder(family: str) -> LoadedBase:
    """The model as a base for a slot of the trainer, the same at every call; its tokenizer is one of bytes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _NEW[family]().eval().requires_grad_(False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=train_tokenizer([], VOCABULARY))
    return LoadedBase(
        public_source=family,
        model=model,
        tokenizer=tokenizer,
        revision="0",
        hashes={"weights": weights_digest(model)},
        device=torch.device("cpu"),
        text=BaseText(tokenizer, frozenset(), VOCABULARY),
        kind="encoder",
    )


def labelled_rows(num_rows: int, *, several: bool = False, seed: int = 0) -> TokenizedDataset:
    """Rows of random tokens. Their label is the third of the vocabulary that most of their tokens are of; with
    `several` labels, every third of which there are at least four."""
    numbers = np.random.RandomState(seed)
    builder = DatasetBuilder()
    labels, sets = [], []
    third = (VOCABULARY - len(SPECIAL_TOKENS)) // 3
    for row in range(num_rows):
        chosen = {row % 3} | ({(row // 3) % 3} if several else set())
        ids = [
            len(SPECIAL_TOKENS) + third * label + int(token)
            for label in chosen
            for token in numbers.randint(0, third, numbers.randint(4, 9))
        ]
        builder.add(ids, [0] * len(ids))
        labels.append(row % 3)
        sets.append([label in chosen for label in range(3)])
    columns = {"row_label_sets": np.array(sets, np.uint8)} if several else {"row_labels": np.array(labels, np.int64)}
    plain = builder.build()
    return TokenizedDataset(plain.tokens, plain.trained, plain.offsets, labels=("high", "low", "mid"), **columns)
