"""Imports of models as their users see them: create, read, list. The worker's side is `import_work`.

An import takes PEFT's LoRA as files of the project: a zip archive, or its two files. It is refused at once for whatever
does not need its bytes; workers read those.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from service.db import files, model_imports, work
from service.db.connection import Transaction
from service.domain import ids
from service.domain.errors import InvalidRequest, NotFound, TooLarge
from service.domain.model import check_suffix
from service.domain.model_import import ARCHIVE, CONFIG, CONFIG_LIMIT_BYTES, HISTORY, WEIGHTS, ModelImport
from service.installation.context import Context
from service.operations import aliases, quotas
from service.operations.import_work import IMPORT
from service.operations.keys import Caller
from service.operations.paging import Page, cut
from service.recipes.base import Base
from service.recipes.tunings.lora import LoraSettings

WHOLE = ({ARCHIVE}, {CONFIG, WEIGHTS})  # what may be sent


@dataclass(frozen=True)
class NewImport:
    """What a user asks for. `files`: ARCHIVE, or CONFIG and WEIGHTS -> the id of a file."""

    base: str
    files: Mapping[str, str]
    suffix: str | None = None
    owns_files: bool = False


async def create(ctx: Context, caller: Caller, new: NewImport) -> ModelImport:
    """Writes the import, then notifies workers. Raises InvalidRequest, QuotaExceeded or TooLarge."""
    if set(new.files) not in WHOLE:
        raise InvalidRequest(
            f"Send one zip archive as 'file' or name one as 'file_id', or send 'adapter_config' and 'adapter_model': "
            f"PEFT's {CONFIG} and {WEIGHTS}.",
            param="file",
            code="missing_required_parameter",
        )
    async with ctx.database.transaction() as tx:
        named = await aliases.find_base(ctx, tx, new.base)
        if named is None:
            offered = ", ".join((await aliases.base_names(ctx, tx))[:10])
            raise InvalidRequest(
                f"There is no base '{new.base}' here: an adapter is imported for the base that it was trained on. The "
                f"bases here are: {offered}.",
                param="base",
                code="model_not_found",
            )
        _check_base(named.base)
        check_suffix(named.alias or named.base.id, caller.organization, new.suffix)
        await quotas.check_import(ctx, tx, caller)
        await _check_files(ctx, tx, caller, new.files)
        imported = ModelImport(
            id=ids.import_id(),
            project_id=caller.project_id,
            base=named.base.id,
            alias=named.alias,
            suffix=new.suffix,
            files=dict(new.files),
            owns_files=new.owns_files,
            status="queued",
            created_at=int(time.time()),
        )
        await model_imports.add(tx, imported)
        await model_imports.remove_beyond(tx, caller.project_id, HISTORY)
        await work.add(tx, IMPORT.name, imported.id, imported.project_id, imported.base)
        tx.after_commit(lambda: ctx.queue.put(imported.id))
    return imported


async def retrieve(ctx: Context, caller: Caller, id: str) -> ModelImport:
    """One import. Raises NotFound, for another project's too."""
    async with ctx.database.reading() as tx:
        imported = await model_imports.find(tx, caller.project_id, id)
    if imported is None:
        raise NotFound(f"Could not find model import: {id}", param="import_id", code="model_import_not_found")
    return imported


async def page(ctx: Context, caller: Caller, *, after: str | None, limit: int) -> Page[ModelImport]:
    """Imports, newest first, older than `after`."""
    async with ctx.database.reading() as tx:
        return cut(await model_imports.page(tx, caller.project_id, after, limit + 1), limit)


def _check_base(base: Base) -> None:
    """Raises InvalidRequest for a base that no LoRA without a head makes a model of, or whose engines serve none."""
    if base.kind != "causal":
        raise InvalidRequest(
            f"'{base.id}' is not a causal language model: adapters are imported for bases that continue a text.",
            param="base",
        )
    if LoraSettings.name not in base.serving.tunings:
        raise InvalidRequest(f"The engines of '{base.id}' do not serve LoRA adapters.", param="base")


async def _check_files(ctx: Context, tx: Transaction, caller: Caller, named: Mapping[str, str]) -> None:
    """Nobody deletes them before this transaction ends."""
    total = 0
    for name, id in named.items():
        file = await files.find(tx, caller.project_id, id, keep=True)
        if file is None:
            raise InvalidRequest(f"No such File object: {id}", param="file_id")
        if name == CONFIG and file.bytes > CONFIG_LIMIT_BYTES:
            raise too_large(CONFIG_LIMIT_BYTES, "adapter_config")
        total += file.bytes
    if total > ctx.settings.import_limit_bytes:
        raise too_large(ctx.settings.import_limit_bytes, "file")


def too_large(limit_bytes: int, param: str) -> TooLarge:
    """The error for an adapter beyond the limit."""
    return TooLarge(
        f"The adapter is too large: this installation accepts at most {limit_bytes:,} bytes here.",
        param=param,
        code="file_too_large",
    )
