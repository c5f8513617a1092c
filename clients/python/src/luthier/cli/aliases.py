"""`luthier aliases`, `promote` and `rollback`: names of the project's that stand for models."""

import itertools
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from luthier.cli.output import Format, Output, print_json, print_record, print_records, when
from luthier.cli.session import client, number

if TYPE_CHECKING:
    from luthier.generated.models import ModelAliasObject

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Names that stand for models. Example: luthier aliases ls"
)

CANARY = 0.1  # a candidate's share of the requests

Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="The name.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="The most to show.")]


@app.command("ls")
def list_aliases(limit: Limit = 20, output: Output = Format.table) -> None:
    """List model aliases, newest first.

    Example: luthier aliases ls -o json
    """
    with client() as luthier:
        found = list(itertools.islice(luthier.model_aliases.list(limit=min(limit, 100)), limit))
    columns = [
        ("alias", lambda alias: alias.id),
        ("model", lambda alias: alias.model),
        ("candidate", _candidate),
        ("before", lambda alias: alias.previous_model),
        ("moved", lambda alias: when(alias.updated_at)),
    ]
    print_records(found, columns, output)


@app.command("show")
def show_alias(alias: Alias, limit: Limit = 20, output: Output = Format.table) -> None:
    """Show what an alias stands for, and its last changes, newest first: when, what, and with whose key.

    Example: luthier aliases show support
    """
    with client() as luthier:
        found = luthier.model_aliases.retrieve(alias)
        changes = list(itertools.islice(luthier.model_aliases.history.list(alias, limit=min(limit, 100)), limit))
    if output is Format.json:
        print_json({**found.to_dict(), "history": [change.to_dict() for change in changes]})
        return
    print_record(found, output)
    if output is Format.table:
        columns = [
            ("when", lambda change: when(change.created_at)),
            ("change", lambda change: change.action),
            ("model", lambda change: change.model),
            ("key", lambda change: f"{change.api_key.name} ({change.api_key.id})"),
        ]
        print_records(changes, columns, output)


@app.command("set")
def set_alias(
    alias: Alias,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="What it stands for.")],
    candidate: Annotated[Optional[str], typer.Option(help="A second model, which serves a share.")] = None,
    weight: Annotated[
        Optional[float],
        typer.Option(callback=number, help="The candidate's share of the requests, between 0 and 1; 0.1 if missing."),
    ] = None,
    output: Output = Format.table,
) -> None:
    """Create an alias, or move the one of that name; without --candidate a canary ends.

    Example: luthier aliases set support ft:luthier-tiny:luthier:workshop:oNyEo5vJ
    """
    from luthier.errors import NotFoundError
    from luthier.generated.models import AliasCandidateParam

    if weight is not None and candidate is None:
        raise typer.BadParameter("It is the share of a candidate: name one with --candidate.", param_hint="--weight")
    second: Optional[AliasCandidateParam] = None
    if candidate is not None:
        second = {"model": candidate, "weight": CANARY if weight is None else weight}
    with client() as luthier:
        try:
            found = luthier.model_aliases.update(alias, model=model, candidate=second)
        except NotFoundError:
            found = luthier.model_aliases.create(name=alias, model=model, candidate=second)
    print_record(found, output)


@app.command("rm")
def remove_alias(alias: Alias, output: Output = Format.id) -> None:
    """Delete an alias; the models that it stood for stay.

    Example: luthier aliases rm support
    """
    with client() as luthier:
        print_record(luthier.model_aliases.delete(alias), output)


def promote(
    alias: Alias,
    model: Annotated[
        Optional[str], typer.Argument(metavar="[MODEL]", help="The model; without it, the candidate.")
    ] = None,
    output: Output = Format.table,
) -> None:
    """Move an alias to a model, or to its candidate: in force at the next request.

    Example: luthier promote support ft:luthier-tiny:luthier:workshop:oNyEo5vJ
    """
    with client() as luthier:
        print_record(luthier.model_aliases.promote(alias, model=model), output)


def rollback(alias: Alias, output: Output = Format.table) -> None:
    """Take the last move of an alias back: end its canary, or return to the model before.

    Example: luthier rollback support
    """
    with client() as luthier:
        now = luthier.model_aliases.retrieve(alias)
        print_record(luthier.model_aliases.rollback(alias, current_model=now.model), output)


def _candidate(alias: "ModelAliasObject") -> str:
    return "" if alias.candidate is None else f"{alias.candidate.model} ({alias.candidate.weight:.0%})"
