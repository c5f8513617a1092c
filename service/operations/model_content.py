"""A tuned model to take home: its artifact as a zip archive, made while it is sent.

The files are PEFT's, stored without compression beside the manifest, in a fixed order and with a fixed date: the same
model is the same bytes each time, so that an interrupted download can continue. Every file is checked against the
manifest while it passes. Nothing is read before the caller's right to it is known.
"""

import hashlib
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass

from service.db import model_aliases, models
from service.db.connection import Transaction
from service.domain.errors import Forbidden, ModelNotFound, NotFound, Unavailable
from service.domain.model import MANIFEST, Model
from service.domain.storage_keys import artifact_prefix
from service.installation.context import Context
from service.operations import aliases
from service.operations.keys import Caller
from service.storage import ObjectMissing, ObjectStore, StorageError
from service.storage.artifacts import ArtifactCorrupt, manifest_bytes, parse_manifest
from service.storage.base import one_chunk
from service.storage.hashed import Hashed

DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can say
LENGTH_LIMIT_BYTES = zipfile.ZIP64_LIMIT  # beyond it, an archive has fields of other lengths


@dataclass(frozen=True)
class _Member:
    name: str
    num_bytes: int
    sha256: str


class ModelContent:
    """The archive of one model. `sha256` is of its manifest, which has the hash of each file."""

    def __init__(self, store: ObjectStore, model: str, manifest: bytes, members: Sequence[_Member]) -> None:
        self._store = store
        self._manifest = manifest
        self._members = members
        self.model = model
        self.sha256 = hashlib.sha256(manifest).hexdigest()

    @property
    def num_bytes(self) -> int | None:
        """The archive's length; None for one of more than 2 GiB, whose length is known at its end."""
        sink = _Sink()
        with zipfile.ZipFile(sink, "w") as archive:
            for member in self._members:
                archive.open(_entry(member), "w").close()
        length = len(sink.take()) + sum(member.num_bytes for member in self._members)
        return length if length <= LENGTH_LIMIT_BYTES else None

    async def chunks(self, start: int = 0) -> AsyncGenerator[bytes]:
        """The archive from byte `start` on. Raises StorageError, in the middle too, for what is missing or damaged."""
        async for chunk in self._archive():
            if start < len(chunk):
                yield chunk[start:]
            start = max(0, start - len(chunk))

    async def _archive(self) -> AsyncGenerator[bytes]:
        sink = _Sink()
        with zipfile.ZipFile(sink, "w") as archive:
            for member in self._members:
                passing = Hashed(self._source(member))
                with archive.open(_entry(member), "w") as entry:
                    async for chunk in passing:
                        entry.write(chunk)
                        yield sink.take()
                if (passing.num_bytes, passing.hexdigest) != (member.num_bytes, member.sha256):
                    raise StorageError(f"The artifact of '{self.model}' has a damaged file: '{member.name}'")
        yield sink.take()

    def _source(self, member: _Member) -> AsyncIterator[bytes]:
        if member.name == MANIFEST:
            return one_chunk(self._manifest)
        return self._store.open(artifact_prefix(self.model) + member.name)


async def find(ctx: Context, caller: Caller, name: str) -> ModelContent:
    """What to send for one of the project's own tuned models, or a model alias of one.

    Raises NotFound, Forbidden for a base and for what another project has only granted, and Unavailable.
    """
    async with ctx.database.reading() as tx:
        target = (await find_own(ctx, tx, caller, name)).name
    try:
        manifest = await manifest_bytes(ctx.storage, target)
        files = parse_manifest(manifest, target).all_files
        prefix = artifact_prefix(target)
        members = [_Member(file, await ctx.storage.size(prefix + file), files[file]) for file in sorted(files)]
    except ObjectMissing as error:
        raise NotFound(
            f"The files of '{target}' are missing from the storage; whoever runs the service can restore them.",
            param="model",
            code="model_files_missing",
        ) from error
    except (StorageError, ArtifactCorrupt) as error:
        raise Unavailable(f"The files of '{target}' are not available right now; please try again.") from error
    members.append(_Member(MANIFEST, len(manifest), hashlib.sha256(manifest).hexdigest()))
    return ModelContent(ctx.storage, target, manifest, members)


async def find_own(ctx: Context, tx: Transaction, caller: Caller, name: str, *, lock: bool = False) -> Model:
    """One of the project's own tuned models, by its name or a model alias of it. `lock`: nobody deletes it meanwhile.

    Raises ModelNotFound, and Forbidden for a base and for what another project has only granted.
    """
    alias = await model_aliases.find(tx, caller.project_id, name)
    target = name if alias is None else alias.model
    if await aliases.find_base(ctx, tx, target) is not None:
        raise Forbidden(f"'{target}' is a base: only tuned models are downloaded from here.", param="model")
    model = await models.find_callable(tx, caller.project_id, target)
    if model is not None and model.project_id != caller.project_id:
        raise Forbidden(f"'{target}' is another project's: your project may call it, not download it.", param="model")
    if model is not None and lock:
        model = await models.find(tx, caller.project_id, target, lock=True)
    if model is None or model.deleted_at is not None:
        raise ModelNotFound(target, alias=None if alias is None else name)
    return model


class _Sink:
    """What the archive is written to: keeps what was not taken yet, and cannot go back."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes, /) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None:
        return

    def close(self) -> None:
        return

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


def _entry(member: _Member) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(member.name, DATE)
    info.file_size = member.num_bytes
    info.external_attr = 0o600 << 16
    return info
