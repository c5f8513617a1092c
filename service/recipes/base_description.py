"""What a base's own files say about it, and the catalogue's entry that follows from that.

The workers' program reads the files (`workers.model.describe`), which needs a tokenizer and a model library; `luthierd
bases add` reads its description as JSON and writes the entry.
"""

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from service.recipes.base import Base, EngineKind, Serving
from service.recipes.catalogue import CatalogueError, served_by
from service.recipes.tasks import BaseKind

CONTEXT_TOKENS = 4096  # at most, unasked: many models read 131072, for which few machines have memory
MAX_RANK: dict[EngineKind, int] = {"embedded": 64, "vllm": 16}  # vLLM computes every adapter at the highest rank
Dtype = Literal["float32", "bfloat16"]


class BaseDescription(BaseModel):
    """One base: where it is, and what it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str  # a folder's absolute path, or a hub id
    revision: str  # the hub's commit; empty for a folder
    kind: BaseKind = "causal"
    dtype: Dtype  # that suits its weights and this machine's device
    device: str = ""  # that device, such as "cpu"
    context_tokens: int | None  # that the model reads at most; None where it names no limit
    chat_template: bool
    licence: str | None  # by its model card, its LICENSE file or its GGUF file


def id_for(source: str) -> str:
    """An id for the base of that source: the last part of its name, in the characters that an id may have."""
    return re.sub(r"[^a-z0-9._-]+", "-", Path(source).name.lower().removesuffix(".gguf")).strip("-._")


def entry(
    found: BaseDescription,
    id: str,
    *,
    context_tokens: int | None = None,
    dtype: Dtype | None = None,
    engine: EngineKind = "embedded",
    without_template: bool = False,
) -> Base:
    """The base as the catalogue will list it. What the caller chooses goes before what was found.

    Raises CatalogueError for a base without a chat template, unless the caller says that it needs none.
    """
    if found.kind == "causal" and not found.chat_template and not without_template:
        raise CatalogueError(
            f"{found.source} has no chat template: chat rows and chat completions would be refused. Take the model's "
            "-Instruct or -Chat version, or copy a chat_template.jinja into the folder; with --without-template the "
            "base is added for prompts and completions alone."
        )
    if dtype is None:  # vLLM computes bfloat16 on a CPU by kernels of its own, which were not measured
        dtype = "float32" if engine == "vllm" and found.device == "cpu" else found.dtype
    longest = min(found.context_tokens or CONTEXT_TOKENS, CONTEXT_TOKENS)
    return Base(
        id=id,
        source=found.source,
        revision=found.revision,
        kind=found.kind,
        dtype=dtype,
        context_tokens=context_tokens or longest,
        serving=Serving(engine=engine, tunings=frozenset(served_by(engine, found.kind)), max_rank=MAX_RANK[engine]),
    )
