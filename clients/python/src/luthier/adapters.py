"""An adapter on this machine, as the service imports it: one zip archive of PEFT's two files."""

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Union

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
POLL_SECONDS = 0.5


@contextmanager
def archive_of(path: "Union[str, os.PathLike[str]]") -> Iterator[Path]:
    """`path` itself where it is an archive; of a folder, one that exists while the block lasts.

    Raises FileNotFoundError for a folder without both files.
    """
    source = Path(path)
    if not source.is_dir():
        yield source
        return
    for name in (CONFIG, WEIGHTS):
        if not (source / name).is_file():
            raise FileNotFoundError(2, "No such file: PEFT's save_pretrained writes it", str(source / name))
    with tempfile.TemporaryDirectory(prefix="luthier-") as folder:
        archive = Path(folder) / "adapter.zip"
        with zipfile.ZipFile(archive, "w") as written:  # not compressed: weights hardly become smaller
            for name in (CONFIG, WEIGHTS):
                written.write(source / name, name)
        yield archive
