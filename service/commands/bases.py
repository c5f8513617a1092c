"""`luthierd bases`: the bases of this installation under all their names, aliases by command; added, tried, removed."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from service.commands.add_base import Wanted, add, remove
from service.db import schema
from service.installation.create import opened
from service.operations import aliases
from service.recipes.base import Base, EngineKind, Quantization
from service.recipes.base_description import Dtype
from service.recipes.catalogue import CatalogueError, read_catalogue
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


@bases_app.command("add")
def add_base(
    source: Annotated[str, typer.Argument(help="A folder, a .gguf file, a hub id, or smollm2-135m.")],
    id: Annotated[str, typer.Option(help="Its name in requests; else it is made of the source's.")] = "",
    context_tokens: Annotated[int | None, typer.Option(min=16, help="Else the model's own, 4096 at most.")] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="Else by the weights and this machine's device.")] = None,
    quantization: Annotated[Quantization | None, typer.Option(help="Its linear layers' weights in 4 bits.")] = None,
    engine: Annotated[EngineKind, typer.Option(help="What serves it.")] = "embedded",
    without_template: Annotated[bool, typer.Option("--without-template", help="For prompts and completions.")] = False,
    check: Annotated[bool, typer.Option(help="Whether it is tried first, as by `check`.")] = True,
) -> None:
    """Write a base into the catalogue (LUTHIER_CATALOGUE, else the data folder's) once a trial of it succeeds."""
    wanted = Wanted(id, context_tokens, dtype, quantization, engine, without_template, check)
    try:
        added = add(Settings(), source, wanted, typer.echo)
    except OSError as error:
        raise CatalogueError(f"{source} was not added: {error}") from error
    raise typer.Exit(not added)


@bases_app.command("remove")
def remove_base(id: str) -> None:
    """Take a base out of the catalogue, where no model and no job that runs needs it. Its files stay."""
    path = asyncio.run(_remove_base(id))
    typer.echo(f"{id} is not in {path} any more. Processes that run read the catalogue when they are started again.")


@bases_app.command("check")
def check_bases(names: Annotated[list[str] | None, typer.Argument(help="Ids; all bases without them.")] = None) -> None:
    """Try each base on this machine: it loads, renders, trains one step per tuning and answers. Exits with 1 if not."""
    bases = read_catalogue(Settings().catalogue).named(names or [])
    codes = [subprocess.run([sys.executable, "-m", "workers", "check", "--base", base.id]).returncode for base in bases]
    raise typer.Exit(any(codes))


async def _remove_base(id: str) -> Path:
    async with opened(Settings()) as ctx:
        await schema.check(ctx.database)
        return await remove(ctx, id)


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
