"""`luthierd bases`: the bases of this installation under all their names, aliases by command, and a trial of each."""

import asyncio
import subprocess
import sys
from typing import Annotated

import typer

from service.db import schema
from service.installation.create import opened
from service.operations import aliases
from service.recipes.base import Base
from service.recipes.catalogue import read_catalogue
from service.settings.settings import Settings

bases_app = typer.Typer(no_args_is_help=True, help="Base models of this installation, and other names for them.")


@bases_app.command("list")
def list_bases() -> None:
    """List every name that a base has: its id, and its aliases."""
    for name, base in asyncio.run(_list()):
        typer.echo(name if name == base else f"{name}  stands for {base}")


@bases_app.command("alias")
def set_alias(alias: str, base: str) -> None:
    """Let ALIAS stand for BASE in every request, so that scripts run unchanged that say e.g. gpt-4o-mini-2024-07-18."""
    found = asyncio.run(_set(alias, base))
    typer.echo(f"{alias} stands for {found.id}; new models that are trained through it are named ft:{alias}:...")


@bases_app.command("unalias")
def remove_alias(alias: str) -> None:
    """Remove an alias; models that are named after it keep their names."""
    asyncio.run(_remove(alias))


@bases_app.command("check")
def check_bases(names: Annotated[list[str] | None, typer.Argument(help="Ids; all bases without them.")] = None) -> None:
    """Try each base on this machine: it loads, renders, trains one step per tuning and answers. Exits with 1 if not."""
    bases = read_catalogue(Settings().catalogue).named(names or [])
    codes = [subprocess.run([sys.executable, "-m", "workers", "check", "--base", base.id]).returncode for base in bases]
    raise typer.Exit(any(codes))


async def _list() -> list[tuple[str, str]]:
    async with opened(Settings()) as ctx:
        await schema.check(ctx.database)
        return await aliases.list_names(ctx)


async def _set(alias: str, base: str) -> Base:
    async with opened(Settings()) as ctx:
        await schema.check(ctx.database)
        return await aliases.set_alias(ctx, alias, base)


async def _remove(alias: str) -> None:
    async with opened(Settings()) as ctx:
        await schema.check(ctx.database)
        await aliases.remove_alias(ctx, alias)
