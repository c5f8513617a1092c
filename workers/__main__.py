"""`luthier-worker`: train | engine | vllm | check | describe. Parses arguments; `luthierd up` starts two."""

import argparse
import asyncio
import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from service.db import schema
from service.domain.errors import Unavailable
from service.installation.create import opened
from service.installation.private import keep_private, make_private
from service.operations import keys
from service.processes.forks import fork_server
from service.processes.parent import end_with_parent
from service.recipes.catalogue import CatalogueError, read_catalogue
from service.recipes.registry import ExtensionError
from service.settings import logs
from service.settings.environment import read_settings, warn_of_unknown
from service.settings.settings import Settings
from service.storage import StorageUnusable


def main() -> None:
    """The console script: errors in the settings end in one line."""
    keep_private()
    parser = argparse.ArgumentParser(prog="luthier-worker", description="Train adapters, or serve them.")
    parser.add_argument(
        "command",
        choices=sorted(COMMANDS),
        help="train: claim and run jobs; engine: serve tokens; vllm: serve tokens with vLLM; check: try a base; "
        "describe: print what a base's files say",
    )
    parser.add_argument("--base", default="", help="id of the base to serve, else LUTHIER_ENGINE_BASE or the first")
    parser.epilog = (
        "vllm: what follows `--` is passed to `vllm serve` unchanged. describe: a hub id follows, or the path of "
        "a folder or of a GGUF file; then the folder that a GGUF file becomes."
    )
    parser.add_argument("--die-with-parent", action="store_true", help=argparse.SUPPRESS)
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments, flags = parser.parse_args(words[:end]), words[end + 1 :]
    try:
        settings = read_settings()
        if arguments.command not in ("vllm", "describe") and flags:
            parser.error("flags after -- are for the commands vllm and describe")
        if arguments.command == "train" and arguments.base:
            parser.error("--base is for engines; LUTHIER_BASES says what a worker trains")
        if arguments.base:
            settings = settings.model_copy(update={"engine_base": arguments.base})
        logs.configure(settings.log_level)
        if not arguments.die_with_parent:  # else the parent has warned already
            warn_of_unknown()
        else:
            end_with_parent()
        make_private(settings.data_dir)
        COMMANDS[arguments.command](settings, flags)
    except (
        CatalogueError,
        ExtensionError,
        schema.SchemaError,
        keys.InstallationError,
        StorageUnusable,
        Unavailable,
        ValueError,
    ) as error:
        sys.exit(f"luthier-worker: {error}")


def _train(settings: Settings, _flags: list[str]) -> None:
    async def run() -> None:
        from workers.supervisor.supervisor import Supervisor  # noqa: PLC0415  torch is loaded only where it is needed
        from workers.supervisor.trainers import create_trainers  # noqa: PLC0415

        gc.collect()
        gc.freeze()  # libraries live as long as the process; a fifth of a check's time went into looking at them again
        async with opened(settings) as ctx:
            await ctx.reserve.backed_start(partial(schema.check, ctx.database))
            await ctx.reserve.backed_start(partial(keys.check_organization, ctx))
            await ctx.reserve.backed_start(ctx.storage.check)
            await Supervisor(ctx, create_trainers(settings, ctx.catalogue), settings.scratch_dir / "jobs").run()

    with fork_server():  # for the trainers; imports while this process does
        asyncio.run(run())


def _engine(settings: Settings, _flags: list[str]) -> None:
    from workers.engines.embedded.app import serve_engine  # noqa: PLC0415

    serve_engine(settings)


def _vllm(settings: Settings, flags: list[str]) -> None:
    from workers.engines.vllm.serve import serve_vllm  # noqa: PLC0415

    serve_vllm(settings, flags)


def _check(settings: Settings, _flags: list[str]) -> None:
    """Tries one base and prints what was found; exits with 1 if there is a problem."""
    import torch  # noqa: PLC0415

    from workers.model.load import choose_device  # noqa: PLC0415
    from workers.trainer.process.trial import try_base  # noqa: PLC0415

    base = read_catalogue(settings.catalogue).of_engine(settings.engine_base)
    if settings.trainer_threads:
        torch.set_num_threads(settings.trainer_threads)
    broken = False
    for finding in try_base(base, choose_device(settings.device)):
        broken |= finding.state == "problem"
        sys.stdout.write(f"{finding.state:7}  {base.id}  {finding.message}\n")
        sys.stdout.flush()
    sys.exit(broken)


def _describe(settings: Settings, words: list[str]) -> None:
    """Prints one line of JSON about a base that is in no catalogue yet."""
    from workers.model.describe import describe  # noqa: PLC0415
    from workers.model.load import choose_device  # noqa: PLC0415

    if len(words) != 2:
        raise ValueError("write describe -- SOURCE FOLDER")
    source, folder = words
    found = describe(source, choose_device(settings.device), Path(folder))
    sys.stdout.write(f"{found.model_dump_json()}\n")


COMMANDS: dict[str, Callable[[Settings, list[str]], None]] = {
    "train": _train,
    "engine": _engine,
    "vllm": _vllm,
    "check": _check,
    "describe": _describe,
}


if __name__ == "__main__":
    main()
