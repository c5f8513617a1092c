"""What somebody sent for an import, as a folder with PEFT's two files: nothing else leaves an archive.

Bytes of strangers: an archive's directory, names, kinds of entries and sizes are checked before anything is unpacked,
and sizes again while it is. Nothing here reads a tensor; `workers.trainer.process.examine` does, in a process of its
own.
"""

import os
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
DIRECTORY_LIMIT_BYTES = 64 * 1024  # of the archive's own directory, which Python reads as a whole
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
_END = struct.Struct("<4s4H2LH")  # end of central directory: APPNOTE.TXT, 4.3.16
_END_MARK, _COMMENT_LIMIT = b"PK\x05\x06", 65_535


def unpack(sent: Mapping[str, Path], folder: Path, limit_bytes: int) -> None:
    """Puts PEFT's two files into `folder`. `sent`: ARCHIVE, or CONFIG and WEIGHTS -> a local file.

    Raises JobError, which says what is wrong, before more than `limit_bytes` are written.
    """
    if ARCHIVE not in sent:
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(sent[name], folder / name)
        return
    try:
        _check_directory(sent[ARCHIVE])
        with zipfile.ZipFile(sent[ARCHIVE]) as archive:
            for name, entry in _wanted(archive).items():
                limit = CONFIG_LIMIT_BYTES if name == CONFIG else limit_bytes
                with archive.open(entry) as source, (folder / name).open("wb") as target:
                    _copy(source, target, name, limit)
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, UnicodeDecodeError) as error:
        raise _refused("it is damaged, or no zip archive at all.") from error


def _check_directory(path: Path) -> None:
    """Raises JobError for a directory that is larger than an adapter's: Python would read all of it into memory."""
    with path.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - _END.size - _COMMENT_LIMIT))
        tail = stream.read()
    begin = tail.rfind(_END_MARK)
    if begin < 0:
        raise _refused("it is damaged, or no zip archive at all.")
    _, _, _, _, entries, num_bytes, _, _ = _END.unpack_from(tail, begin)
    if entries > ENTRIES_LIMIT or num_bytes > DIRECTORY_LIMIT_BYTES:
        raise _refused(f"it has more than {ENTRIES_LIMIT} entries; an adapter has two files.")


def _wanted(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The two entries that are unpacked. Raises JobError for whatever an archive of an adapter does not have."""
    entries = archive.infolist()
    if len(entries) > ENTRIES_LIMIT:
        raise _refused(f"it has more than {ENTRIES_LIMIT} entries; an adapter has two files.")
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
