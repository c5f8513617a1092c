"""Names and artifacts of tuned models: immutable folders in storage, addressed by the model's public name.

Format of a name (OpenAI's): `ft:<base>:<organisation slug>:<suffix or empty>:<8 characters>[:ckpt-step-<N>]`.
"""

import re
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from service.domain.errors import InvalidRequest
from service.domain.storage_keys import fits, room_beside

MANIFEST = "manifest.json"
HEAD_CONFIG = "head.json"
SERVED = "served"  # the folder of the form that engines load, in an artifact of which that is another one
MODEL_PREFIX = "ft:"
ORGANIZATION_LIMIT = 32  # characters of the slug; see `service.settings.settings`

_NAME = re.compile(
    r"ft:[A-Za-z0-9][A-Za-z0-9._-]*:[a-z0-9][a-z0-9-]*:[A-Za-z0-9_-]*:[A-Za-z0-9]{8}(?::ckpt-step-[0-9]{1,9})?"
)
STEP_LIMIT = 999_999_999
_PUBLICATION_CHARACTERS = 8

# What a model is for; `service.recipes.tasks` has what follows from it.
TaskName = Literal["generate", "classify", "embed"]
ModelKind = Literal["final", "checkpoint"]


@dataclass(frozen=True)
class Model:
    """A published model that users call by `name`. A deleted or pruned one keeps its row as a tombstone."""

    name: str
    project_id: str
    job_id: str | None  # None: it was imported
    base: str
    kind: ModelKind
    step: int
    tuning: str
    created_at: int
    deleted_at: int | None = None
    task: TaskName = "generate"
    import_id: str | None = None  # what made it, where no job did


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
    return fits(text) and _NAME.fullmatch(text) is not None


def suffix_room(base: str, organization: str) -> int:
    """How many characters a suffix may have, so that each name of its job can be stored; below 0: not even none."""
    longest = model_name(base, organization, None, "x" * _PUBLICATION_CHARACTERS, STEP_LIMIT)
    return room_beside(longest)


def check_suffix(base: str, organization: str, suffix: str | None) -> None:
    """Raises InvalidRequest where the names of a job with this suffix could not be stored."""
    room = suffix_room(base, organization)
    if suffix is not None and len(suffix) > room:
        raise InvalidRequest(
            f"'suffix' has {len(suffix)} characters, but names of models of '{base}' have room for {max(0, room)} "
            "only: its id is long. Please shorten the suffix, or leave it out.",
            param="suffix",
            code="string_above_max_length",
        )


class HeadConfig(BaseModel):
    """`head.json`: what a model computes from a text's states: labels or a score by a layer of its own, in Hugging
    Face's words, or `embedding`, the vector itself at length 1, for which it has no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    problem_type: Literal["single_label_classification", "multi_label_classification", "regression", "embedding"]
    labels: list[str]  # in the order of the outputs; none for a score or a vector
    pooling: Literal["last", "cls", "mean"]  # which vector of the text it reads

    @property
    def num_outputs(self) -> int:
        """Of the layer."""
        return 1 if self.problem_type == "regression" else len(self.labels)


class ServedFiles(BaseModel):
    """What engines load instead of an artifact's own files: another tuning, computed from the one that was trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tuning: str
    rank: int
    share: float  # of the squared norm of what the training changed
    files: dict[str, str]  # file name in the folder `SERVED` -> sha256


class Manifest(BaseModel):
    """`manifest.json`, written last: an artifact without it does not exist."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    job_id: str  # of an imported model: its import's id
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
    head: HeadConfig | None = None  # of a model that classifies, scores or embeds
    served: ServedFiles | None = None  # None: engines load `files`
    files: dict[str, str]  # file name in this folder -> sha256; every file but the manifest
    created_at: int

    @property
    def served_tuning(self) -> str:
        """Of the files that engines load."""
        return self.tuning if self.served is None else self.served.tuning

    @property
    def served_files(self) -> dict[str, str]:
        """File name -> sha256 of what engines load, in `served_folder`."""
        return self.files if self.served is None else self.served.files

    @property
    def served_folder(self) -> str:
        """Of what engines load, within the artifact's: empty, or ending in `/`."""
        return "" if self.served is None else f"{SERVED}/"

    @property
    def all_files(self) -> dict[str, str]:
        """Path in the artifact's folder -> sha256 of everything in it but the manifest."""
        served = {} if self.served is None else self.served.files
        return self.files | {f"{SERVED}/{name}": sha256 for name, sha256 in served.items()}

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What a model does not have is written as before there was any: earlier engines read it."""
        written: dict[str, Any] = serialize(self)
        absent = {name for name in ("head", "served") if written[name] is None}
        return {name: value for name, value in written.items() if name not in absent}
