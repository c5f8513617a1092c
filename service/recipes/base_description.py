"""What a base's own files say about it, and the catalogue's entry that follows from that.

The workers' program reads the files (`workers.model.describe`), which needs a tokenizer and a model library; `luthierd
bases add` reads its description as JSON and writes the entry.
"""

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from service.recipes.base import Base, EngineKind, Quantization, Serving
from service.recipes.catalogue import CatalogueError, served_by
from service.recipes.tasks import BaseKind
from service.recipes.tuning import TUNINGS

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


def id_for(source: str, quantization: Quantization | None = None) -> str:
    """An id for the base of that source: the last part of its name, in the characters that an id may have.

    A packed base is another base than the same one unpacked, which may stand beside it.
    """
    name = re.sub(r"[^a-z0-9._-]+", "-", Path(source).name.lower().removesuffix(".gguf")).strip("-._")
    return name if quantization is None or not name else f"{name}-{quantization}"


def entry(
    found: BaseDescription,
    id: str,
    *,
    context_tokens: int | None = None,
    dtype: Dtype | None = None,
    quantization: Quantization | None = None,
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
    tunings = frozenset(served_by(engine, found.kind))
    if quantization is not None:
        tunings -= {tuning.name for tuning in TUNINGS if tuning.moves_the_base}
    longest = min(found.context_tokens or CONTEXT_TOKENS, CONTEXT_TOKENS)
    return Base(
        id=id,
        source=found.source,
        revision=found.revision,
        kind=found.kind,
        dtype=dtype,
        quantization=quantization,
        context_tokens=context_tokens or longest,
        serving=Serving(engine=engine, tunings=tunings, max_rank=MAX_RANK[engine]),
    )
