"""The key of a tokenised file: a hash of everything that decides what `workers.data.check` finds and returns.

Two jobs with the same key need the same tokens, whoever owns them and whatever else they set. What is missing here is
a bug that nobody sees: a job would train on another's tokens. So what might matter is in.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import version

from transformers import PreTrainedTokenizerFast

from service.recipes.objective import ObjectiveSettings
from workers.data import tokenized
from workers.data.base_text import BaseText
from workers.data.labels import LabelSet

# Raised by one with every change by which the same row may become other tokens, or be refused where it was not.
RENDERER_VERSION = 3
PACKAGES = ("transformers", "tokenizers", "jinja2")


def text_digest(text: BaseText) -> str:
    """sha256 of what the base does with text: vocabulary, rules, special tokens, ends of answers, chat template."""
    tokenizer = text.tokenizer
    assert isinstance(tokenizer, PreTrainedTokenizerFast), "a base without tokenizer.json is not loaded"
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    for used_by_a_call in ("padding", "truncation"):
        rules.pop(used_by_a_call, None)
    return _sha256(
        {
            "class": type(tokenizer).__name__,
            "rules": rules,
            "special_tokens": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
            "all_special_tokens": tokenizer.all_special_tokens,
            "split_special_tokens": tokenizer.split_special_tokens,
            "end_ids": sorted(text.end_ids),
            "num_embeddings": text.num_embeddings,
            "chat_template": tokenizer.chat_template,
            **({} if text.decoder_start_id is None else {"decoder_start_id": text.decoder_start_id}),
        }
    )


def content_key(
    text: str,
    segments: Sequence[str],
    objective: type[ObjectiveSettings],
    *,
    row_tokens: int,
    row_limit_bytes: int,
    examples_minimum: int,
    template_day: date | None = None,
    labels: LabelSet | None = None,
    turns_apart: bool = False,
) -> str:
    """The key for the base whose `text_digest` is `text`, and a file whose segments have these sha256, in order.

    A row has at most `row_tokens`: the base's context without what the tuning takes. `template_day` is the date that
    the chat template is given as today's; None where it prints none, so that jobs of different days share their tokens.
    `labels` are those of the training file, for a validation file that has them. `turns_apart` as `Renderer`.
    """
    return _sha256(
        {
            "renderer": RENDERER_VERSION,
            "format": tokenized.VERSION,
            "packages": {package: version(package) for package in PACKAGES},
            "text": text,
            "segments": list(segments),  # not one hash of them, which a file of hashes would have too
            "objective": objective.name,
            "rows": [f"{format.__module__}.{format.__qualname__}" for format in objective.formats],
            "rows_per_example": objective.rows_per_example,
            "context_tokens": row_tokens,
            "row_limit_bytes": row_limit_bytes,
            "examples_minimum": examples_minimum,
            "template_day": None if template_day is None else template_day.isoformat(),
            **({"labels": asdict(labels)} if labels else {}),
            **({"turns_apart": True} if turns_apart else {}),
        }
    )


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
