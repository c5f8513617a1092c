"""`luthier files`."""

import itertools
from pathlib import Path
from typing import Annotated, Optional

import typer

from luthier.cli.output import Force, Format, Output, line, note, print_record, print_records, size, when
from luthier.cli.session import client

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Files. Example: luthier files ls")

FileId = Annotated[str, typer.Argument(metavar="FILE_ID", help="The id of the file.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="The most to show.")]


@app.command("ls")
def list_files(limit: Limit = 20, output: Output = Format.table) -> None:
    """List files, newest first.

    Example: luthier files ls -o id
    """
    with client() as luthier:
        found = list(itertools.islice(luthier.files.list(limit=min(limit, 1000)), limit))
    columns = [
        ("file", lambda file: file.id),
        ("name", lambda file: file.filename),
        ("size", lambda file: size(file.bytes)),
        ("purpose", lambda file: file.purpose),
        ("created", lambda file: when(file.created_at)),
    ]
    print_records(found, columns, output)


@app.command("show")
def show_file(file_id: FileId, output: Output = Format.table) -> None:
    """Show every field of a file.

    Example: luthier files show file-abc123
    """
    with client() as luthier:
        print_record(luthier.files.retrieve(file_id), output)


@app.command("rm")
def remove_file(file_id: FileId, output: Output = Format.id) -> None:
    """Delete a file.

    Example: luthier files rm file-abc123
    """
    with client() as luthier:
        print_record(luthier.files.delete(file_id), output)


@app.command("upload")
def upload_file(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="Rows as JSONL.")],
    output: Output = Format.id,
) -> None:
    """Upload a file of rows; prints its id. A large file goes in parts, and continues where it was interrupted.

    Example: luthier files upload training.jsonl
    """
    from luthier.cli.uploads import upload_with_bar

    with client() as luthier:
        print_record(upload_with_bar(luthier, path), output)


@app.command("download")
def download_file(
    file_id: FileId,
    to: Annotated[
        Optional[Path], typer.Option(dir_okay=False, help="Where to write; the file's own name if it is missing.")
    ] = None,
    force: Force = False,
) -> None:
    """Download a file; prints its path. One that exists is replaced with --force only.

    Example: luthier files download file-abc123 --to rows.jsonl
    """
    from luthier.downloads import check_free

    with client() as luthier:
        target = to or Path(Path(luthier.files.retrieve(file_id).filename).name)
        check_free([] if force else [target])
        line(luthier.files.download(file_id).write_to_file(target))
    note(f"{size(target.stat().st_size)} written.")
