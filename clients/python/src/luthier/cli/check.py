"""`luthier check`: what is known of a job before it exists, without starting one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from luthier.cli import findings
from luthier.cli.output import Format, Output, line, note, print_record, visible
from luthier.cli.session import EXIT_ERROR, EXIT_FAILED, client, number
from luthier.cli.tune import ServeAs, ServeRank, method_and_tuning, parse_settings, served_form
from luthier.cli.uploads import Uploads, check_base

if TYPE_CHECKING:
    from luthier.client import Luthier
    from luthier.generated.models import CheckObject, RowMask

TRAINED, OTHER = ("\x1b[1;32m", "\x1b[0m"), ("\x1b[2m", "\x1b[0m")


def check(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="Rows as JSONL.")],
    base: Annotated[str, typer.Option(help="The base, or a tuned model to continue from.")],
    validation: Annotated[
        Optional[Path], typer.Option(exists=True, dir_okay=False, readable=True, help="Rows that are not trained.")
    ] = None,
    method: Annotated[Optional[str], typer.Option(help="The loss, as of `luthier tune`.")] = None,
    tuning: Annotated[Optional[str], typer.Option(help="What moves, as of `luthier tune`.")] = None,
    setting: Annotated[Optional[list[str]], typer.Option("--set", help="A setting, as of `luthier tune`.")] = None,
    serve_as: ServeAs = None,
    serve_rank: ServeRank = None,
    rows: Annotated[int, typer.Option(min=0, max=100, help="Show what is trained of the first rows.")] = 0,
    timeout: Annotated[float, typer.Option(min=0, callback=number, help="Seconds to wait for the result.")] = 3600.0,
    output: Output = Format.table,
) -> None:
    """Upload FILE and find out everything about a job on it that can be known before: nothing is trained.

    The exit code is 0 if the job could start, 1 if a file is invalid.

    Example: luthier check training.jsonl --base luthier-tiny --rows 2
    """
    hyperparameters, tuning, of_tuning = parse_settings(setting or [], tuning)
    served = served_form(serve_as, serve_rank, tuning)
    body = method_and_tuning(method, hyperparameters, tuning, of_tuning, served)
    if rows and output is not Format.table:
        raise typer.BadParameter("Rows are shown beside the tables only: leave out -o.", param_hint="--rows")
    files = {"training_file": file} | ({} if validation is None else {"validation_file": validation})
    with client() as luthier:
        found = _checked(luthier, base, files, body, timeout)
        masks = _masks(luthier, found, rows)
    if output is not Format.table:
        print_record(found, output)
    elif found.result is not None:
        findings.show(found.result)
        for mask in masks:
            _show_mask(mask)
    if found.result is None:
        reason = found.error.message if found.error is not None else found.status
        note(f"luthier: the check could not be done: {reason}")
        raise typer.Exit(EXIT_ERROR)
    note(f"Start the job with the same rows: luthier tune {file} --base {base}" if found.result.valid else "Not valid.")
    raise typer.Exit(0 if found.result.valid else EXIT_FAILED)


def _checked(
    luthier: "Luthier", base: str, files: dict[str, Path], body: dict[str, Any], timeout: float
) -> "CheckObject":
    """The check once it has ended; where it was not waited for, what was uploaded for it is deleted."""
    from luthier.requests import OMIT

    check_base(luthier, base)
    uploads = Uploads(luthier)
    with uploads.deleted_without_job():
        uploads.send(files)
        made = luthier.fine_tuning.checks.create(
            model=base,
            training_file=uploads.files["training_file"],
            validation_file=uploads.files.get("validation_file", OMIT),
            extra_body=body,
        )
        uploads.check = made.id
        return findings.done(luthier, made, timeout)


def _masks(luthier: "Luthier", found: "CheckObject", rows: int) -> "list[RowMask]":
    if rows == 0 or found.result is None or not found.result.training_file.valid:
        return []
    return luthier.fine_tuning.checks.rows(found.id, limit=rows).data


def _show_mask(mask: "RowMask") -> None:
    """A row as the base reads it; what is trained is between brackets, and bold on a terminal."""
    from luthier.cli.output import console

    colours = console().is_terminal and not console().no_color
    line(f"\nline {mask.line}")
    for sequence in mask.sequences:
        parts = []
        for piece in sequence.pieces:
            text = f"[{visible(piece.text)}]" if piece.trained else visible(piece.text)
            before, after = (TRAINED if piece.trained else OTHER) if colours else ("", "")
            parts.append(f"{before}{text}{after}")
        typer.echo("".join(parts))  # its colours are ours
        line(f"({sequence.trained_tokens} of {sequence.tokens} tokens are trained: those in brackets)")
