"""The file of an objective's own parameters, beside the adapter's: safetensors, listed in the artifact's manifest.

The same weights give the same bytes.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

HEAD = "head.safetensors"
_PRIVATE = 0o600


class HeadMismatch(Exception):
    """A saved head is broken or has another shape; the message says what is wrong."""


def save_head(folder: Path, parameters: Mapping[str, Tensor]) -> None:
    """Writes the file, unless the objective has no parameters."""
    if parameters:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in parameters.items()}
        save_file(plain, folder / HEAD, metadata={"format": "pt"})
        (folder / HEAD).chmod(_PRIVATE)


def load_head(folder: Path, parameters: Mapping[str, nn.Parameter]) -> None:
    """Copies a saved head into `parameters`; without a file, or without parameters, nothing changes.

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
