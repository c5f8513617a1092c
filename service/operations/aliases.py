"""Aliases of bases: which base a name stands for. A project's own names for models are in `model_aliases`.

A base has an id and aliases in the catalogue's file, and aliases that `luthierd bases` has set: rows of the database,
so that every process knows them from its next request on; the catalogue's own names come first. An alias lets a script
run unchanged that says a commercial model's name.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.db import aliases, model_aliases
from service.db.aliases import Alias
from service.db.connection import Transaction
from service.domain.errors import InvalidRequest
from service.domain.model import MODEL_PREFIX, ORGANIZATION_LIMIT, suffix_room
from service.installation.context import Context
from service.recipes.base import Base, is_base_name
from service.recipes.catalogue import Catalogue

LIMIT = 100


@dataclass(frozen=True)
class NamedBase:
    """A base, and the alias that a caller said for it; None for its id."""

    base: Base
    alias: str | None = None


async def find_base(ctx: Context, tx: Transaction, name: str) -> NamedBase | None:
    """What `name` stands for; None for a tuned model's name, and for an alias of a base that is not here any more."""
    if (named := in_catalogue(ctx.catalogue, name)) is not None or not is_base_name(name):
        return named
    alias = await aliases.find(tx, name)
    base = None if alias is None else ctx.catalogue.bases.get(alias.base)
    return None if base is None else NamedBase(base, name)


def in_catalogue(catalogue: Catalogue, name: str) -> NamedBase | None:
    """As `find_base`, for the names of the catalogue's file, which need no database."""
    base = catalogue.find(name)
    return None if base is None else NamedBase(base, None if name == base.id else name)


async def base_names(ctx: Context, tx: Transaction) -> list[str]:
    """Every name of every base: ids and the file's aliases in the catalogue's order, then those set by command."""
    return [name for name, _ in _all_names(ctx.catalogue, await aliases.every(tx))]


async def names_and_bases(ctx: Context, tx: Transaction) -> list[tuple[str, Base]]:
    """Everything that `base_names` lists, with its base."""
    return [(name, ctx.catalogue.bases[id]) for name, id in _all_names(ctx.catalogue, await aliases.every(tx))]


async def list_names(ctx: Context) -> list[tuple[str, str]]:
    """Name and base of everything that `base_names` lists."""
    async with ctx.database.reading() as tx:
        return list(_all_names(ctx.catalogue, await aliases.every(tx)))


def _all_names(catalogue: Catalogue, set_by_command: Sequence[Alias]) -> Iterable[tuple[str, str]]:
    for base in catalogue.bases.values():
        yield base.id, base.id
        yield from ((alias, base.id) for alias in base.aliases)
    for alias in set_by_command:
        if catalogue.find(alias.alias) is None and alias.base in catalogue.bases:
            yield alias.alias, alias.base


async def set_alias(ctx: Context, alias: str, base: str) -> Base:
    """Lets `alias` stand for the base of that id or alias, from the next request on. Raises InvalidRequest."""
    _check_name(ctx.catalogue, alias)
    async with ctx.database.transaction() as tx:
        named = await find_base(ctx, tx, base)
        if named is None:
            raise InvalidRequest(f"There is no base '{base}'; the catalogue has: {', '.join(ctx.catalogue.bases)}.")
        if await aliases.find(tx, alias) is None and len(await aliases.every(tx)) >= LIMIT:
            raise InvalidRequest(f"There are {LIMIT} aliases already: remove one with `luthierd bases unalias`.")
        if await model_aliases.has_name(tx, alias):
            raise InvalidRequest(f"'{alias}' is a project's model alias (/v1/model_aliases): choose another name.")
        await aliases.put(tx, Alias(alias, named.base.id))
    return named.base


async def remove_alias(ctx: Context, alias: str) -> None:
    """Ends an alias; models that are named after it keep their names. Raises InvalidRequest."""
    async with ctx.database.transaction() as tx:
        if await aliases.remove(tx, alias):
            return
    where = " It is in the catalogue's file: remove it there." if ctx.catalogue.find(alias) is not None else ""
    raise InvalidRequest(f"There is no alias '{alias}' that was set by command.{where}")


def _check_name(catalogue: Catalogue, alias: str) -> None:
    if alias.startswith(MODEL_PREFIX):
        raise InvalidRequest(f"'{alias}' is a tuned model's name: an alias stands for a base, such as gpt-4o-mini.")
    if not is_base_name(alias):
        raise InvalidRequest(
            f"'{alias}' cannot be an alias: write letters, digits, '.', '_', '/' and '-', beginning with a letter or "
            "digit."
        )
    if suffix_room(alias, "x" * ORGANIZATION_LIMIT) < 0:
        raise InvalidRequest(f"'{alias}' is too long: its models' names could not be stored.")
    if catalogue.find(alias) is not None:
        raise InvalidRequest(f"'{alias}' is a name of the catalogue's file already: change it there.")
