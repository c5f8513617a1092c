"""`luthier models`."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from luthier.cli.output import Format, Output, note, print_record, print_records, size, when
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


def pull(
    model: ModelId,
    to: Annotated[Optional[Path], typer.Option(help="Where to write; a name made of the model's if missing.")] = None,
) -> None:
    """Download a tuned model, or what an alias stands for, as a zip archive of PEFT's files; prints its path.

    Example: luthier pull support --to support.zip
    """
    target = to or Path("".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in model) + ".zip")
    with client() as luthier:
        typer.echo(luthier.models.download(model).write_to_file(target))
    note(f"{size(target.stat().st_size)} written.")
