"""A base that loads in a moment: a random Llama of two small layers and a tokenizer of bytes, as a real folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from service.recipes.base import Base, Serving
from workers.data.batches import Batch
from workers.data.tokenized import TokenizedDataset
from workers.objectives.base import TokenLosses, losses_of_columns
from workers.toy_base.tokenizer import SPECIAL_TOKENS, save_tokenizer, train_tokenizer

torch.set_num_threads(1)  # with two, on a machine that others use too, small operations take a hundred times as long
CONTEXT_TOKENS = 256
VOCABULARY = 256 + len(SPECIAL_TOKENS)
STRANGE = "<strange>"  # a token that the weights of a base do not know


@dataclass(frozen=True)
class Saying:
    """A model, as objectives ask it, that says these logits whatever it reads."""

    logits_BTV: Tensor

    def logits(self, batch: Batch, keep_K: Tensor) -> Tensor:
        return self.logits_BTV[:, keep_K]

    def token_losses(self, batch: Batch) -> TokenLosses:
        return losses_of_columns(self, batch)

    def hidden(self, batch: Batch) -> Tensor:
        raise NotImplementedError("a model without states")


def make_tiny_base(
    folder: Path,
    seed: int = 0,
    dtype: str = "float32",
    head_dim: int = 8,
    tunings: Sequence[str] = ("lora", "prompt"),
    num_layers: int = 2,
) -> Base:
    """Writes the folder of a base and returns its catalogue entry. vLLM needs heads of 32 numbers or more."""
    folder.mkdir(parents=True, exist_ok=True)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        model.lm_head.weight.data.mul_(6)  # else no adapter could make it sure of a token
        model.save_pretrained(folder)
    save_tokenizer(train_tokenizer([], VOCABULARY), folder, CONTEXT_TOKENS)
    return Base(
        id="tiny",
        source=str(folder),
        dtype=dtype,
        context_tokens=CONTEXT_TOKENS,
        learning_rate={"lora": 1e-2, "prompt": 1e-1},
        serving=Serving(tunings=frozenset(tunings)),
    )


def write_chat_template(folder: Path, template: str) -> None:
    """Gives the base in `folder` another chat template."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"chat_template": template}), encoding="utf-8")


def add_unknown_token(folder: Path) -> None:
    """Gives the tokenizer of the base in `folder` the token STRANGE, which its weights do not have."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([STRANGE])
    tokenizer.save_pretrained(folder)


def random_rows(num_rows: int, seed: int = 0, shortest: int = 6, longest: int = 24) -> TokenizedDataset:
    """Rows of random tokens; the second half of each trains."""
    numbers = np.random.RandomState(seed)
    lengths = [int(numbers.randint(shortest, longest + 1)) for _ in range(num_rows)]
    return rows_of([numbers.randint(len(SPECIAL_TOKENS), VOCABULARY, length).tolist() for length in lengths])


def random_pairs(num_pairs: int, seed: int = 0) -> TokenizedDataset:
    """Pairs of rows: a random prompt and two random answers to it, of different lengths; the answers train."""
    numbers = np.random.RandomState(seed)
    tokens: list[int] = []
    trained: list[int] = []
    ends = [0]
    for _ in range(num_pairs):
        prompt = numbers.randint(len(SPECIAL_TOKENS), VOCABULARY, numbers.randint(3, 9)).tolist()
        for _ in range(2):
            answer = numbers.randint(len(SPECIAL_TOKENS), VOCABULARY, numbers.randint(2, 9)).tolist()
            tokens += prompt + answer
            trained += [0] * len(prompt) + [1] * len(answer)
            ends.append(len(tokens))
    return TokenizedDataset(
        np.array(tokens, dtype=np.int32),
        np.array(trained, dtype=np.uint8),
        np.array(ends, dtype=np.int64),
        rows_per_example=2,
    )


def rows_of(rows: Sequence[Sequence[int]]) -> TokenizedDataset:
    """These tokens; the second half of each row trains."""
    trained = [[int(2 * place + 1 >= len(row)) for place in range(len(row))] for row in rows]
    return TokenizedDataset(
        tokens=np.array([token for row in rows for token in row], dtype=np.int32),
        trained=np.array([flag for row in trained for flag in row], dtype=np.uint8),
        offsets=np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64),
    )
