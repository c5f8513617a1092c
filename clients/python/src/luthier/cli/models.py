"""`luthier models`."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from luthier.cli.output import Force, Format, Output, line, note, print_record, print_records, prose, size, when
from luthier.cli.session import EXIT_FAILED, client

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Models. Example: luthier models ls")


class Form(str, Enum):
    """What is downloaded of a model."""

    peft = "peft"
    merged = "merged"


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


@app.command("import")
def push(
    path: Annotated[Path, typer.Argument(exists=True, readable=True, help="PEFT's folder, or a zip archive of it.")],
    base: Annotated[str, typer.Option(help="The base that the adapter was trained on.")],
    suffix: Annotated[Optional[str], typer.Option(help="A part of the model's name.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the model may be called, or is refused.")] = True,
    output: Output = Format.id,
) -> None:
    """Import a LoRA that was trained elsewhere, as PEFT saved it; prints the name of the model.

    The exit code is 0 if the model may be called, 1 if the adapter is refused.

    Example: luthier push my-adapter --base luthier-tiny

    `luthier models import` is the same command.

    Example: luthier models import my-adapter --base luthier-tiny
    """
    with client() as luthier:
        made = luthier.push(path, base, suffix=suffix, wait=wait)
    if output is Format.id and made.model is not None:
        line(made.model)
    else:
        print_record(made, output)
    if made.error is not None:
        note(f"luthier: {made.error.message}")
        raise typer.Exit(EXIT_FAILED)
    if made.agreement is not None:
        prose(made.agreement.message)
    elif made.model is None:
        note(f"Follow it: luthier models import-status {made.id}")


@app.command("import-status")
def show_import(
    import_id: Annotated[str, typer.Argument(metavar="IMPORT_ID", help="The id of the import.")],
    output: Output = Format.table,
) -> None:
    """Show an import: its status, and the model's name or what is wrong with the adapter.

    Example: luthier models import-status modelimport-abc123
    """
    with client() as luthier:
        print_record(luthier.model_imports.retrieve(import_id), output)


def pull(
    model: ModelId,
    to: Annotated[
        Optional[Path], typer.Option(dir_okay=False, help="Where to write; a name made of the model's if missing.")
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="`peft`: PEFT's files; `merged`: one model, for transformers and others.")
    ] = Form.peft,
    force: Force = False,
) -> None:
    """Download a tuned model, or what an alias stands for, as a zip archive; prints its path.

    A file that exists is replaced with --force only.

    `--format merged` waits until the service has merged the model's weights into its base's.

    Example: luthier pull support --to support.zip
    """
    from luthier.downloads import check_free

    target = to or Path("".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in model) + ".zip")
    check_free([] if force else [target])
    with client() as luthier:
        line(luthier.pull(model, target, format=form.value))
    note(f"{size(target.stat().st_size)} written.")
