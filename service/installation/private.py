"""The data folder is for the user whose processes these are: folders 0700, files 0600.

It holds keys, users' files and weights. `keep_private` is the first thing that a process does.
"""

import os
from pathlib import Path

import structlog

log = structlog.get_logger()


def keep_private() -> None:
    """From now on, what this process and its children create is theirs alone."""
    os.umask(0o077)


def make_private(folder: Path) -> None:
    """Makes the folder, or removes the rights that others have to it, as far as it is ours.

    Raises ValueError for a folder that cannot be made, and for a name that is not UTF-8: it could not be passed to
    other processes, nor be written down.
    """
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        shown = ascii(str(folder.absolute()))
        raise ValueError(f"LUTHIER_DATA_DIR: {shown} is not UTF-8; set it to a folder with another name") from None
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ValueError(
            f"LUTHIER_DATA_DIR: {folder.absolute()} cannot be made ({error.strerror}); set it to a folder that can"
        ) from error
    if folder.stat().st_mode & 0o077:
        try:
            folder.chmod(0o700)
        except PermissionError:
            log.warning("data_dir.open_to_others", path=str(folder.absolute()))
