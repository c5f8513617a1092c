"""The catalogue: the base models of an installation, read from one small TOML file.

A file with errors is rejected as a whole, with a sentence for each error: which entry, what is wrong, and what to write
instead.
"""

import difflib
import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from service.domain.model import ORGANIZATION_LIMIT, suffix_room
from service.recipes.base import Base, EngineKind
from service.recipes.base_folder import names_folder
from service.recipes.tasks import BaseKind
from service.recipes.tuning import TUNINGS


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
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogueError(f"The catalogue {path} cannot be read: {error}") from error
    entries = document.pop("base", None)
    if not isinstance(entries, list) or not entries:
        raise CatalogueError(f"The catalogue {path} lists no [[base]].")
    bases: list[Base] = []
    problems = [f"It has '{name}', which is nothing; write [[base]]." for name in document]
    for number, entry in enumerate(entries, start=1):
        try:
            base = _absolute(Base.model_validate(entry), path.parent)
        except ValidationError as invalid:
            problems += [f"{_entry(entry, number)} {_sentence(error)}" for error in invalid.errors()]
        else:
            bases.append(base)
            problems += [f"{_entry(entry, number)} {problem}" for problem in _contradictions(base)]
    if problems:
        raise CatalogueError(f"The catalogue {path} cannot be used. {' '.join(problems)}")
    return Catalogue(bases)


def served_by(engine: EngineKind, kind: BaseKind = "causal") -> list[str]:
    """The names of the tunings of bases of that kind that engines of that kind can serve."""
    return [tuning.name for tuning in TUNINGS if engine in tuning.engines and kind in tuning.kinds]


def _absolute(base: Base, folder: Path) -> Base:
    """The base with a folder's absolute path; one that is missing too, so that nobody asks a hub for it."""
    if not names_folder(base.source, folder):
        return base
    return base.model_copy(update={"source": str((folder / Path(base.source).expanduser()).resolve())})


def _entry(entry: Any, number: int) -> str:
    id = entry.get("id") if isinstance(entry, dict) else None
    return f"The base '{id}'" if isinstance(id, str) else f"Base number {number}"


def _contradictions(base: Base) -> Iterator[str]:
    """What is well formed, but does not exist or is not possible."""
    serving, served, known = base.serving, served_by(base.serving.engine, base.kind), TUNINGS.names
    for name in (base.id, *base.aliases):
        room = suffix_room(name, "x" * ORGANIZATION_LIMIT)
        if room < 0:
            what = "an id" if name == base.id else "an alias"
            yield f"has {what} that is {-room} characters too long for its models' names; write a shorter one."
    for name in sorted(serving.tunings - set(known)):
        yield f"names '{name}' in serving.tunings, which is no tuning; write one of {_listed(known)}."
    for name in sorted(serving.tunings & set(known) - set(served)):
        yield (
            f"names the tuning '{name}', which the engine '{serving.engine}' does not serve for a base of the kind "
            f"'{base.kind}'; write {_listed(served) or 'none'}."
        )
    for tuning in TUNINGS if base.quantization else ():
        if tuning.name in serving.tunings & set(served) and tuning.moves_the_base:
            yield (
                f"names the tuning '{tuning.name}', which moves the base's own weights: quantization = "
                f'"{base.quantization}" stores them in 4 bits; leave one of both out.'
            )
    if not serving.tunings:
        yield f"names no tuning in serving.tunings; write one of {_listed(served)}."
    for name, rate in base.learning_rate.items():
        if name not in known:
            yield f"has a learning_rate for '{name}', which is no tuning; write one of {_listed(known)}."
        elif not 0 < rate < float("inf"):
            yield f"has the learning_rate {rate} for '{name}'; write a number above 0, such as 0.001."
    if serving.engine == "vllm" and base.kind != "causal":
        yield f'is of the kind "{base.kind}", which vLLM does not serve here; take the engine "embedded".'
    if base.kind == "encoder-decoder" and base.quantization:
        yield 'is of the kind "encoder-decoder", which is not stored in 4 bits; leave quantization out.'
    if serving.engine == "embedded" and serving.tool_call_parser:
        yield 'has a serving.tool_call_parser, but the embedded engine calls no tools; leave it out or take "vllm".'
    longest = _positions(Path(base.source))
    if longest is not None and base.context_tokens > longest:
        yield f"has {base.context_tokens} context_tokens, but its config.json says {longest}; write at most that."


def _positions(folder: Path) -> int | None:
    """How many tokens a model reads at most; None where no local config.json has it."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    text = config.get("text_config", config)
    positions = text.get("max_position_embeddings")
    return positions if isinstance(positions, int) else None


def _sentence(error: ErrorDetails) -> str:
    """One error in a field, with what to write by the field's description."""
    location = [str(part) for part in error["loc"]]
    if not location:
        return "is not a table; write [[base]] and its settings below."
    path = ".".join(location)
    if error["type"] == "extra_forbidden":
        known = list(_fields(location[:-1]))
        near = difflib.get_close_matches(location[-1], known, n=1) or known
        return f"has '{path}', which is no setting; write one of {_listed(near)}."
    wanted = _description(location)
    if error["type"] == "missing":
        return f"has no '{path}'; write {wanted}."
    return f"has {json.dumps(error['input'], default=str)} as '{path}'; write {wanted}."


def _fields(location: Sequence[str]) -> dict[str, FieldInfo]:
    """The fields of the table at `location`."""
    model: type[BaseModel] = Base
    for name in location:
        found = model.model_fields[name].annotation
        assert isinstance(found, type) and issubclass(found, BaseModel)
        model = found
    return dict(model.model_fields)


def _description(location: Sequence[str]) -> str:
    """Of the innermost field that has one: of a list or table that of the whole."""
    table = location[:1] if location[:1] == ["serving"] and len(location) > 1 else []
    return _fields(table)[location[len(table)]].description or "a value"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
