"""An objective's own parameters beside an adapter, as a safetensors file that the artifact's manifest lists.

Byte for byte the same for the same weights. Knows files and tensors.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

HEAD = "head.safetensors"
_READABLE = 0o644  # engines may run as another user than the trainer


class HeadMismatch(Exception):
    """A saved head is broken or has another shape; the message says where."""


def write_head(folder: Path, parameters: Mapping[str, Tensor]) -> None:
    """Writes the file, unless the objective has no parameters."""
    if parameters:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in parameters.items()}
        save_file(plain, folder / HEAD, metadata={"format": "pt"})
        (folder / HEAD).chmod(_READABLE)


def take_over_head(folder: Path, parameters: Mapping[str, nn.Parameter]) -> None:
    """Copies a saved head into `parameters`; without a file, or without parameters, they stay as they are.

    Raises HeadMismatch before anything is changed.
    """
    if not parameters or not (folder / HEAD).exists():
        return
    try:
        saved = load_file(folder / HEAD)
    except SafetensorError as error:
        raise HeadMismatch(f"{HEAD} is broken.") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    wanted = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    if shapes != wanted:
        raise HeadMismatch(f"The saved head has other shapes than this job's: {shapes} and not {wanted}.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
