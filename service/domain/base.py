"""The catalogue: the base models of an installation, read from one small TOML file."""

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Serving(BaseModel):
    """What the engines of a base can serve."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tunings: frozenset[str]
    max_lora_rank: int = Field(64, ge=1)


class Base(BaseModel):
    """One base model. See `service/bases.toml` for what the fields mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    aliases: tuple[str, ...] = ()
    source: str
    revision: str = ""
    dtype: str = Field("float32", pattern="^(float32|bfloat16)$")
    context_tokens: int = Field(ge=16)
    learning_rate: dict[str, float]
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
