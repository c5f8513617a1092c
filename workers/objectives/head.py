"""The file of an objective's own parameters, beside the adapter's: safetensors, listed in the artifact's manifest.

The same weights give the same bytes.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from service.domain.model import HEAD_CONFIG, HeadConfig
from workers.model.head import HEAD, read_config

_PRIVATE = 0o600
NAMES_SHOWN = 5


class HeadMismatch(Exception):
    """A saved head is broken or has another shape; the message says what is wrong."""


def save_head(folder: Path, parameters: Mapping[str, Tensor], config: HeadConfig | None = None) -> None:
    """Writes the file, unless the objective has no parameters; with a `config` that file too."""
    if config is not None:
        (folder / HEAD_CONFIG).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / HEAD_CONFIG).chmod(_PRIVATE)
    if parameters:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in parameters.items()}
        save_file(plain, folder / HEAD, metadata={"format": "pt"})
        (folder / HEAD).chmod(_PRIVATE)


def load_head(folder: Path, parameters: Mapping[str, nn.Parameter], config: HeadConfig | None = None) -> None:
    """Copies a saved head into `parameters`; without a file, or without parameters, nothing changes.

    A head for another problem (a score, where labels are wanted) is not continued either. Raises HeadMismatch before
    anything is changed.
    """
    saved_config = read_config(folder)
    if config is not None and saved_config is not None and saved_config != config:
        if saved_config.problem_type != config.problem_type:
            return
        raise HeadMismatch(_difference(saved_config, config))
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


def _difference(saved: HeadConfig, wanted: HeadConfig) -> str:
    if saved.labels != wanted.labels:
        return (
            f"its labels are {len(saved.labels)} ({_shown(saved.labels)}), those of the training file "
            f"{len(wanted.labels)} ({_shown(wanted.labels)}): give it the same ones, or start from the base."
        )
    return f"it reads the vector '{saved.pooling}' and not '{wanted.pooling}': leave 'pooling' as it was."


def _shown(labels: list[str]) -> str:
    return ", ".join(labels[:NAMES_SHOWN]) + (", ..." if len(labels) > NAMES_SHOWN else "")
