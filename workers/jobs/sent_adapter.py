"""What somebody sent for an import, as a folder with PEFT's two files: nothing else leaves an archive.

Bytes of strangers: of an archive's directory no more is read than an adapter's has; names, kinds of entries and sizes
are checked before anything is unpacked, and sizes again while it is. Nothing here reads a tensor;
`workers.trainer.process.examine` does, in a process of its own.
"""

import io
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from service.domain.errors import JobError
from service.domain.model_import import ARCHIVE, CONFIG, CONFIG_LIMIT_BYTES, WEIGHTS
from service.storage.base import CHUNK_BYTES

ENTRIES_LIMIT = 64
# What zipfile reads to open an archive: at most 64 KiB of comment and end records, then the directory as a whole.
OPENING_LIMIT_BYTES = 2 * 64 * 1024
PATH_LIMIT = 255
# What PEFT, transformers and this service put beside an adapter: not needed here, and no harm.
IGNORED = frozenset(
    {
        "README.md", "LICENSE", "LICENSE.txt", ".gitattributes", "manifest.json", "config.json",
        "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "trainer_state.json",
    }
)  # fmt: skip
UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".ckpt")  # formats that may run a program when they are read
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_MANY = f"it has more than {ENTRIES_LIMIT} entries; an adapter has two files."


def unpack(sent: Mapping[str, Path], folder: Path, limit_bytes: int) -> None:
    """Puts PEFT's two files into `folder`. `sent`: ARCHIVE, or CONFIG and WEIGHTS -> a local file.

    Raises JobError, which says what is wrong, before more than `limit_bytes` are written.
    """
    if ARCHIVE not in sent:
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(sent[name], folder / name)
        return
    try:
        with _Archive(sent[ARCHIVE]) as stream, zipfile.ZipFile(stream) as archive:
            stream.opened()
            for name, entry in _wanted(archive).items():
                limit = CONFIG_LIMIT_BYTES if name == CONFIG else limit_bytes
                with archive.open(entry) as source, (folder / name).open("wb") as target:
                    _copy(source, target, name, limit)
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, UnicodeDecodeError) as error:
        raise _refused("it is damaged, or no zip archive at all.") from error


class _Archive(io.BufferedReader):
    """An archive's bytes, of which at most OPENING_LIMIT_BYTES are read until `opened`; raises JobError beyond them.

    What an archive says of its directory's size proves nothing, and which of its records zipfile believes depends on
    Python's version. So the bytes are counted that it really reads.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._left_bytes: int | None = OPENING_LIMIT_BYTES

    def opened(self) -> None:
        """The directory is read: from now on `read` has no bound of its own."""
        self._left_bytes = None

    def read(self, size: int | None = -1, /) -> bytes:
        if self._left_bytes is None:
            return super().read(size)
        one_beyond = self._left_bytes + 1
        found = super().read(one_beyond if size is None or size < 0 else min(size, one_beyond))
        self._left_bytes -= len(found)
        if self._left_bytes < 0:
            raise _refused(_MANY)
        return found


def _wanted(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The two entries that are unpacked. Raises JobError for whatever an archive of an adapter does not have."""
    entries = archive.infolist()
    if len(entries) > ENTRIES_LIMIT:
        raise _refused(_MANY)
    files = [entry for entry in entries if not _is_folder(entry)]
    inside = {_folder_of(entry.filename) for entry in files}
    wanted: dict[str, zipfile.ZipInfo] = {}
    for entry in files:
        name = PurePosixPath(entry.filename).name
        _check_entry(entry)
        if name in (CONFIG, WEIGHTS):
            if name in wanted:
                raise _refused(f"it has '{name}' twice.")
            wanted[name] = entry
        elif name not in IGNORED:
            raise _refused(_foreign(name))
    if len(inside) > 1:
        raise _refused("its files are in several folders; put both files into one, or beside each other.")
    if missing := [name for name in (CONFIG, WEIGHTS) if name not in wanted]:
        raise _refused(f"it has no {' and no '.join(missing)}.")
    return wanted


def _check_entry(entry: zipfile.ZipInfo) -> None:
    path = entry.filename
    if len(path) > PATH_LIMIT or "\\" in path or path.startswith("/") or ":" in path or ".." in path.split("/"):
        raise _refused("it has an entry whose path leads out of its folder.")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise _refused(f"'{_shown(path)}' is a link or a device, not a file.")
    if entry.flag_bits & _ENCRYPTED:
        raise _refused(f"'{_shown(path)}' is encrypted.")
    if entry.compress_type not in _COMPRESSIONS:
        raise _refused(f"'{_shown(path)}' is compressed in a way that is not read here; use deflate, or none.")


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    if not entry.is_dir():
        return False
    _check_entry(_as_file(entry))
    return True


def _as_file(entry: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """A folder's entry as a file's, so that its path is checked by the same rules."""
    plain = zipfile.ZipInfo(entry.filename)
    plain.flag_bits = entry.flag_bits & ~_ENCRYPTED
    return plain


def _folder_of(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _foreign(name: str) -> str:
    if name.endswith(UNSAFE):
        return (
            f"'{_shown(name)}' may run a program when it is read, so it is not read here. Save the adapter as "
            "safetensors (PEFT's save_pretrained does) and leave this file out."
        )
    return f"'{_shown(name)}' is no file of an adapter; send {CONFIG} and {WEIGHTS} only."


def _copy(source: IO[bytes], target: IO[bytes], name: str, limit_bytes: int) -> None:
    """Counts what comes out: the sizes that an archive declares prove nothing."""
    written = 0
    while chunk := source.read(CHUNK_BYTES):
        written += len(chunk)
        if written > limit_bytes:
            raise _refused(f"'{name}' has more than {limit_bytes:,} bytes when it is unpacked.")
        target.write(chunk)


def _shown(path: str) -> str:
    """A stranger's name, as far as an error message repeats it."""
    return "".join(letter if letter.isprintable() else "?" for letter in path[:80])


def _refused(reason: str) -> JobError:
    return JobError("invalid_adapter", f"The archive cannot be imported: {reason}", "file")
