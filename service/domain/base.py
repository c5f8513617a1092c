"""The catalogue: the base models of an installation, read from one small TOML file."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

EngineKind = Literal["embedded", "vllm"]
VLLM_TUNINGS = frozenset({"lora"})
VLLM_MAX_LORA_RANK = 512


class Serving(BaseModel):
    """What the engines of a base can serve."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: EngineKind = "embedded"
    engines: tuple[str, ...] = ()  # URLs; empty: by the rule of `service.domain.engines`
    tunings: frozenset[str]
    max_lora_rank: int = Field(64, ge=1)
    tool_call_parser: str = Field("", pattern=r"^[A-Za-z0-9_-]*$")

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        """What no engine of that kind can do is a mistake in the catalogue, not one of a job's user."""
        if self.engine == "embedded" and self.tool_call_parser:
            raise ValueError('tool_call_parser is for engine = "vllm": the embedded engine calls no tools')
        if self.engine == "vllm" and not self.tunings <= VLLM_TUNINGS:
            raise ValueError(f"vLLM serves no tunings but {sorted(VLLM_TUNINGS)}")
        if self.engine == "vllm" and self.max_lora_rank > VLLM_MAX_LORA_RANK:
            raise ValueError(f"vLLM serves ranks up to {VLLM_MAX_LORA_RANK}")
        return self


class Base(BaseModel):
    """One base model. See `service/bases.toml` for what the fields mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    aliases: tuple[str, ...] = ()
    source: str
    revision: str = ""
    dtype: str = Field("float32", pattern="^(float32|bfloat16)$")
    context_tokens: int = Field(ge=16)
    learning_rate: dict[str, float] = {}  # by tuning; without one the tuning's own rule
    serving: Serving

    @property
    def public_source(self) -> str:
        """The source as strangers may see it: a hub id, or a folder's name without its path."""
        return Path(self.source).name if Path(self.source).is_absolute() else self.source


class CatalogueError(Exception):
    """The catalogue file cannot be used; the message says which entry and why."""


class Catalogue:
    """The bases by id and by alias."""

    def __init__(self, bases: list[Base]) -> None:
        self.bases = {base.id: base for base in bases}
        self._by_name = dict(self.bases)
        for base in bases:
            for alias in base.aliases:
                if alias in self._by_name:
                    raise CatalogueError(f"The name '{alias}' stands for two bases.")
                self._by_name[alias] = base
        if len(self.bases) != len(bases):
            raise CatalogueError("Two bases have the same id.")

    def find(self, name: str) -> Base | None:
        """The base of that id or alias."""
        return self._by_name.get(name)

    def named(self, names: Sequence[str]) -> list[Base]:
        """The bases of these ids or aliases; all of them for none. Raises CatalogueError."""
        unknown = [name for name in names if self.find(name) is None]
        if unknown:
            raise CatalogueError(f"The catalogue has no base '{unknown[0]}'; it has: {', '.join(self.bases)}.")
        found = {base.id: base for base in map(self.find, names) if base is not None}
        return list((found or self.bases).values())

    def of_engine(self, name: str) -> Base:
        """The base that one engine serves: of that id or alias, or the first. Raises CatalogueError."""
        found = self.find(name) if name else next(iter(self.bases.values()))
        if found is None:
            raise CatalogueError(f"The catalogue has no base '{name}'.")
        return found


def read_catalogue(path: Path) -> Catalogue:
    """Reads `path`; a relative folder in `source` is relative to it. Raises CatalogueError."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("base", [])
        bases = [Base.model_validate(entry) for entry in entries]
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise CatalogueError(f"The catalogue {path} cannot be read: {error}") from error
    if not bases:
        raise CatalogueError(f"The catalogue {path} lists no [[base]].")
    return Catalogue([_absolute(base, path.parent) for base in bases])


def _absolute(base: Base, folder: Path) -> Base:
    local = (folder / base.source).resolve()
    return base.model_copy(update={"source": str(local)}) if local.is_dir() else base
