"""Writes arrays as a safetensors file without a copy of them in memory; the bytes are those of `safetensors` itself.

The library's own `save_file` first makes a bytes object of every array. The format is
https://github.com/huggingface/safetensors#format: the header's length (8 bytes, little endian), the header as JSON,
padded by spaces to a multiple of 8, then the arrays: those of larger elements first, then by kind and by name.
"""

import json
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 4 * 1024 * 1024
_NAMES = {
    np.dtype(np.uint8): "U8",
    np.dtype(np.int32): "I32",
    np.dtype(np.int64): "I64",
    np.dtype(np.float32): "F32",
}


def write_safetensors(arrays: Mapping[str, NDArray[Any]], path: Path, metadata: Mapping[str, str]) -> None:
    """Arrays of one of the kinds above, in the order that the library gives them. Raises KeyError for another kind."""
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, _NAMES[arrays[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    begin = 0
    for name in order:
        end = begin + arrays[name].nbytes
        header[name] = {
            "dtype": _NAMES[arrays[name].dtype],
            "shape": list(arrays[name].shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            _write(arrays[name], file)


def _write(values: NDArray[Any], file: BinaryIO) -> None:
    flat = values.reshape(-1)
    step = CHUNK_BYTES // values.itemsize
    for begin in range(0, len(flat), step):
        file.write(np.ascontiguousarray(flat[begin : begin + step]).tobytes())
        forget_pages(values)


def forget_pages(values: NDArray[Any]) -> None:
    """Of an array that is mapped from a file, what was read is no longer in this process' memory; it is in the file."""
    owner: object = values
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
