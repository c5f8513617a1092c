"""The tokenizer of a bundled base: byte-level BPE, six special tokens, one chat template.

The files that it writes are those of the tokenizers library, so that everything that reads Hugging Face folders can
load them without our code.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (PAD, BEGIN, END, SYSTEM, USER, ASSISTANT)

# Every message is rendered by itself, so the rendering of a conversation's start is a prefix of the rendering of the
# whole: loss masks depend on this. What it cannot render (tool calls, parts) is an error, never dropped.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- set names = {'system': 'system', 'developer': 'system', 'user': 'user', 'assistant': 'assistant', \
'tool': 'user', 'function': 'user'} -%}
{%- for message in messages -%}
{%- if message['role'] not in names -%}
{{- raise_exception('this base has no role named ' ~ message['role']) -}}
{%- endif -%}
{%- if message['content'] is not string -%}
{{- raise_exception('this base only takes messages whose content is a string') -}}
{%- endif -%}
{{- '<|' ~ names[message['role']] ~ '|>' ~ message['content'] ~ eos_token -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>' -}}
{%- endif -%}
"""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn a byte-level BPE vocabulary of exactly `vocab_size` entries; the special tokens have the ids 0 to 5."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"the text is too short for {vocab_size} entries: it gave {tokenizer.get_vocab_size()}")
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context_tokens: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` for AutoTokenizer."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        # The name that both transformers 4 and 5 have.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [SYSTEM, USER, ASSISTANT],
        "model_max_length": context_tokens,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
