"""Names and artifacts of tuned models: immutable folders in storage, addressed by the model's public name.

Format of a name (OpenAI's): `ft:<base>:<organisation slug>:<suffix or empty>:<8 characters>[:ckpt-step-<N>]`.
"""

import re
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

MANIFEST = "manifest.json"
MODEL_PREFIX = "ft:"

_NAME = re.compile(
    r"ft:[A-Za-z0-9][A-Za-z0-9._-]*:[a-z0-9][a-z0-9-]*:[A-Za-z0-9_-]*:[A-Za-z0-9]{8}(?::ckpt-step-[0-9]{1,9})?"
)
_NAME_LIMIT = 250  # characters; longer ones are no file names

ModelKind = Literal["final", "checkpoint"]


@dataclass(frozen=True)
class Model:
    """A published model that users call by `name`. A deleted or pruned one keeps its row as a tombstone."""

    name: str
    project_id: str
    job_id: str
    base: str
    kind: ModelKind
    step: int
    tuning: str
    created_at: int
    deleted_at: int | None = None


@dataclass(frozen=True)
class Permission:
    """Another project's right to call a model."""

    id: str
    model_name: str
    project_id: str
    created_at: int


def model_name(base: str, organization: str, suffix: str | None, publication: str, step: int | None = None) -> str:
    """The public name; `step` only for a checkpoint that is not the last. A hub base's `/` becomes `-`."""
    name = f"{MODEL_PREFIX}{base.replace('/', '-')}:{organization}:{suffix or ''}:{publication}"
    return name if step is None else f"{name}:ckpt-step-{step}"


def is_model_name(text: str) -> bool:
    """Whether `model_name` could have made it: no path, no escape, nothing that storage could take for a folder."""
    return len(text) <= _NAME_LIMIT and _NAME.fullmatch(text) is not None


def artifact_prefix(name: str) -> str:
    """Where the artifact of `name` lies in storage, ending in `/`. Any name maps to one safe path segment."""
    return f"adapters/{quote(name, safe='')}/"


class Manifest(BaseModel):
    """`manifest.json`, written last: an artifact without it does not exist."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    job_id: str
    step: int
    base: str
    base_source: str
    base_revision: str
    base_hashes: dict[str, str]  # "weights", "tokenizer", "chat_template" -> sha256
    tuning: str
    objective: str
    hyperparameters: dict[str, Any]
    seed: int
    parent: str | None
    template_date: date | None = None  # what the chat template was given as today's; None before 0.2.0
    data_hashes: dict[str, str]  # "training", "validation" -> sha256 of the file's bytes
    environment: dict[str, str]
    metrics: dict[str, int | float]
    files: dict[str, str]  # file name in this folder -> sha256; every file but the manifest
    created_at: int
