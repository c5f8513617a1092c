"""`luthier models`."""

from typing import Annotated

import typer

from luthier.cli.output import Format, Output, print_record, print_records, when
from luthier.cli.session import client

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Models. Example: luthier models ls")

ModelId = Annotated[str, typer.Argument(metavar="MODEL", help="The name of the model.")]


@app.command("ls")
def list_models(output: Output = Format.table) -> None:
    """List bases and tuned models.

    Example: luthier models ls -o id
    """
    with client() as luthier:
        found = list(luthier.models.list())
    columns = [
        ("model", lambda model: model.id),
        ("owner", lambda model: model.owned_by),
        ("created", lambda model: when(model.created)),
    ]
    print_records(found, columns, output)


@app.command("show")
def show_model(model: ModelId, output: Output = Format.table) -> None:
    """Show every field of a model.

    Example: luthier models show luthier-tiny
    """
    with client() as luthier:
        print_record(luthier.models.retrieve(model), output)


@app.command("rm")
def remove_model(model: ModelId, output: Output = Format.id) -> None:
    """Delete a tuned model.

    Example: luthier models rm ft:luthier-tiny:luthier:workshop:oNyEo5vJ
    """
    with client() as luthier:
        print_record(luthier.models.delete(model), output)
