"""`luthierd`: up | serve | migrate | doctor | keys | bases | openapi. Parses arguments; the work is elsewhere."""

import asyncio
import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
import typer

from service.commands import up
from service.commands.api_processes import check_processes, keep_processes, listening
from service.commands.bases import bases_app
from service.commands.doctor import examine
from service.db import schema
from service.db.keys import ApiKey
from service.domain.errors import LuthierError
from service.installation.create import opened
from service.installation.private import keep_private
from service.operations import keys
from service.processes.parent import end_with_parent
from service.recipes.catalogue import CatalogueError
from service.recipes.registry import ExtensionError
from service.settings import logs
from service.settings.environment import read_settings, warn_of_unknown
from service.settings.settings import Settings
from service.storage import StorageUnusable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Luthier: a self-hosted fine-tuning service.",
)
keys_app = typer.Typer(no_args_is_help=True, help="API keys of this installation.")
app.add_typer(keys_app, name="keys")
app.add_typer(bases_app, name="bases")
log = structlog.get_logger()


Processes = Annotated[int | None, typer.Option(min=1, help="API processes, instead of LUTHIER_API_PROCESSES.")]


def _with_processes(processes: int | None) -> Settings:
    """The settings. Raises ValueError where so many API processes cannot keep what they promise."""
    settings = Settings()
    if processes is not None:
        settings = settings.model_copy(update={"api_processes": processes})
    check_processes(settings)
    return settings


@app.command("up")
def up_command(
    processes: Processes = None, die_with_parent: Annotated[bool, typer.Option(hidden=True)] = False
) -> None:
    """Migrate, then run API, worker and engine on this machine until Ctrl-C."""
    if die_with_parent:
        end_with_parent()
    raise typer.Exit(up.run(_with_processes(processes)))


@app.command()
def serve(
    processes: Processes = None,
    number: Annotated[int | None, typer.Option(hidden=True)] = None,
    die_with_parent: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run the API alone; rejects a database of another schema version, and a storage that cannot be used."""
    settings = _with_processes(processes)
    asyncio.run(_check_parts(settings))
    if die_with_parent:
        end_with_parent()
    if settings.api_processes > 1 and number is None:
        asyncio.run(keep_processes(settings))
        return
    if number is None:
        listening(settings, shared=False).close()  # else uvicorn says less
    from service.commands.serve import serve_api  # noqa: PLC0415  FastAPI is loaded only where it is needed

    serve_api(settings, number)


@app.command()
def migrate() -> None:
    """Bring the database's schema up to this version."""
    asyncio.run(up.prepare(Settings()))


@app.command()
def openapi(path: Annotated[Path, typer.Argument()] = Path("openapi/openapi.json")) -> None:
    """Write the OpenAPI document."""
    from service.api.openapi import document  # noqa: PLC0415  FastAPI is loaded only where it is needed

    path.write_text(json.dumps(document(), indent=2) + "\n", encoding="utf-8")


@app.command()
def doctor(
    probe: Annotated[bool, typer.Option(help="Also write an object into storage, and remove it.")] = False,
) -> None:
    """Check every part and report problems; exits with 1 if there are any. Writes nothing without --probe."""
    findings = asyncio.run(examine(Settings(), probe=probe))
    for finding in findings:
        typer.echo(f"{finding.state:7}  {finding.part:9}  {finding.message}")
    raise typer.Exit(any(finding.state == "problem" for finding in findings))


@keys_app.command("create")
def create_key(project: str = "default", name: str = "key", admin: bool = False) -> None:
    """Create a key for a project (created too if it is new) and print it, once."""
    typer.echo(asyncio.run(_create_key(project, name, "admin" if admin else "project")))


@keys_app.command("list")
def list_keys() -> None:
    """List every key without its secret."""
    for key in asyncio.run(_list_keys()):
        state = "revoked" if key.revoked_at else "active"
        typer.echo(f"{key.id}  {key.role:7}  {key.project_id}  {state:7}  {key.name}")


@keys_app.command("revoke")
def revoke_key(id: str) -> None:
    """Revoke a key; it stops working within seconds."""
    if not asyncio.run(_revoke_key(id)):
        raise typer.BadParameter(f"There is no active key '{id}'.")


def main() -> None:
    """The console script: errors in the settings end in one line that names them."""
    keep_private()
    try:
        logs.configure(read_settings().log_level)
        if "--die-with-parent" not in sys.argv:  # else the parent has logged it
            warn_of_unknown()
        app()
    except (
        CatalogueError,
        ExtensionError,
        schema.SchemaError,
        keys.InstallationError,
        StorageUnusable,
        LuthierError,
        ValueError,
    ) as error:
        sys.exit(f"luthierd: {error}")
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f"luthierd: {error.filename}: {error.strerror}")


async def _check_parts(settings: Settings) -> None:
    async with opened(settings) as ctx:
        await ctx.reserve.backed_start(partial(schema.check, ctx.database))
        await ctx.reserve.backed_start(partial(keys.check_organization, ctx))
        await ctx.reserve.backed_start(ctx.storage.check)


async def _create_key(project: str, name: str, role: str) -> str:
    async with opened(Settings()) as ctx:
        return await ctx.reserve.backed_start(partial(keys.create_key, ctx, project, role, name))


async def _list_keys() -> list[ApiKey]:
    async with opened(Settings()) as ctx:
        return await ctx.reserve.backed_start(partial(keys.list_keys, ctx))


async def _revoke_key(id: str) -> bool:
    async with opened(Settings()) as ctx:
        return await ctx.reserve.backed_start(partial(keys.revoke_key, ctx, id))
