"""A LoRA that was trained elsewhere, on its way to a model of this installation.

    queued --> running --> succeeded | failed

What was sent are files of its project: one zip archive, or PEFT's two files. `publication` is what was found good and
stored, and what is still to be announced. Times are unix seconds.
"""

from dataclasses import dataclass
from typing import Literal

from service.domain.json import JsonObject

Status = Literal["queued", "running", "succeeded", "failed"]
FINAL: frozenset[Status] = frozenset({"succeeded", "failed"})

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # PEFT's names
ARCHIVE = "adapter.zip"
CONFIG_LIMIT_BYTES = 1024 * 1024
HISTORY = 1000  # imports of one project that are kept once they have ended

OBJECTIVE = "imported"  # what the manifest of such a model says for its objective


@dataclass(frozen=True)
class ModelImport:
    """One row of the model_imports table. Who works on it is a row of `service.domain.work`."""

    id: str
    project_id: str
    base: str
    alias: str | None  # of its base, which the request said: the model is named after it
    suffix: str | None
    files: dict[str, str]  # ARCHIVE, or CONFIG and WEIGHTS -> the id of a file
    owns_files: bool  # whether they came with the request: then they go when the import has ended
    status: Status
    created_at: int
    finished_at: int | None = None
    error: JsonObject | None = None  # code, message, param
    publication: JsonObject | None = None  # a `service.domain.job.Publication`, once the artifact is stored
    tuning: JsonObject | None = None  # `service.recipes.tuning.tuning_of` reads it; known with the publication
    model: str | None = None  # its name, once it may be called
    agreement: JsonObject | None = None  # what an engine said of it: message, and figures


def named_after(imported: ModelImport) -> str:
    """What the model's name says for its base."""
    return imported.alias or imported.base
