"""`luthier keys`: API keys of all projects, for admins."""

import itertools
from typing import Annotated, Literal

import typer

from luthier.cli.output import Format, Output, note, print_record, print_records, when
from luthier.cli.session import client

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="API keys, for admins. Example: luthier keys ls")

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The id of the key, which is not its secret.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="The most to show.")]


@app.command("ls")
def list_keys(limit: Limit = 20, output: Output = Format.table) -> None:
    """List keys of all projects, newest first, without their secrets.

    Example: luthier keys ls -o json
    """
    with client() as luthier:
        found = list(itertools.islice(luthier.api_keys.list(limit=min(limit, 100)), limit))
    columns = [
        ("key", lambda key: key.id),
        ("name", lambda key: key.name),
        ("project", lambda key: key.project),
        ("role", lambda key: key.role),
        ("created", lambda key: when(key.created_at)),
        ("revoked", lambda key: when(key.revoked_at)),
    ]
    print_records(found, columns, output)


@app.command("show")
def show_key(key: KeyId, output: Output = Format.table) -> None:
    """Show whose a key is, and whether it is revoked.

    Example: luthier keys show key_eG6Z64rIbJ450brAy3d2gM5Z
    """
    with client() as luthier:
        print_record(luthier.api_keys.retrieve(key), output)


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    project: Annotated[str, typer.Option(help="Its project, which is created if it is new.")] = "default",
    admin: Annotated[bool, typer.Option("--admin", help="It sees every project, and may create keys.")] = False,
    output: Output = Format.table,
) -> None:
    """Create a key. Its secret is shown now and never again.

    Example: luthier keys create laptop --project team-a
    """
    role: Literal["project", "admin"] = "admin" if admin else "project"
    with client() as luthier:
        made = luthier.api_keys.create(name=name, project=project, role=role)
    print_record(made, output)
    note("Keep `value` now: it is the secret, and is not shown again.")


@app.command("rm")
def remove_key(key: KeyId, output: Output = Format.id) -> None:
    """Revoke a key: at most 5 seconds later it is worth nothing.

    Example: luthier keys rm key_eG6Z64rIbJ450brAy3d2gM5Z
    """
    with client() as luthier:
        print_record(luthier.api_keys.delete(key), output)
