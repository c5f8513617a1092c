"""A head: one linear layer on one vector of a text, for models that classify or score what they read; or no layer, for
those that return the vector.

The trainer's objectives create and train it; the embedded engine loads it from an artifact. Both compute with it here.
Its file is safetensors beside the adapter's, listed in the artifact's manifest; an objective with other parameters of
its own has them there, too. The same weights give the same bytes.
Shapes: B rows, T tokens, H hidden, C outputs (labels, or one score).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from service.domain.model import HEAD_CONFIG, HeadConfig
from workers.tunings import AdapterMismatch

HEAD = "head.safetensors"
WEIGHT, BIAS = "weight", "bias"  # their names in the file
NAMES_SHOWN = 5  # labels in a message
_PRIVATE = 0o600


class Head:
    """y = W h + b in float32, with h the vector that `config.pooling` chooses; a score has no b, an embedding is h."""

    def __init__(self, config: HeadConfig, hidden_size: int, device: torch.device) -> None:
        """W and b are zero: every label is as likely as the others."""
        self.config = config
        self._parameters: dict[str, nn.Parameter] = {}
        if config.problem_type == "embedding":
            return
        outputs = config.num_outputs
        self._parameters[WEIGHT] = nn.Parameter(torch.zeros(outputs, hidden_size, device=device))
        if config.problem_type != "regression":
            self._parameters[BIAS] = nn.Parameter(torch.zeros(outputs, device=device))

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """By their names in the file."""
        return self._parameters

    def logits(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """logits_BC; C is H for an embedding. `mask_BT` is 1 for tokens and 0 for padding, which is on the right."""
        pooled_BH = self._pooled(hidden_BTH, mask_BT).float()
        if self.config.problem_type == "embedding":
            return pooled_BH
        return nn.functional.linear(pooled_BH, self._parameters[WEIGHT], self._parameters.get(BIAS))

    def values(self, logits_BC: Tensor) -> Tensor:
        """What a caller sees: probabilities of the labels, the score as it is, or the vector at length 1."""
        match self.config.problem_type:
            case "single_label_classification":
                return logits_BC.softmax(dim=-1)
            case "multi_label_classification":
                return logits_BC.sigmoid()
            case "regression":
                return logits_BC
            case "embedding":
                return nn.functional.normalize(logits_BC, dim=-1)

    def _pooled(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        match self.config.pooling:
            case "cls":
                return hidden_BTH[:, 0]
            case "last":
                last_B = mask_BT.sum(dim=1) - 1
                return hidden_BTH[torch.arange(len(last_B), device=last_B.device), last_B]
            case "mean":
                mask_BT1 = mask_BT.unsqueeze(-1).float()
                return (hidden_BTH.float() * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1)


def read_config(folder: Path) -> HeadConfig | None:
    """The head of the artifact in `folder`; None for a model that generates. Raises AdapterMismatch."""
    path = folder / HEAD_CONFIG
    try:
        return HeadConfig.model_validate_json(path.read_bytes()) if path.exists() else None
    except ValidationError as error:
        raise AdapterMismatch(f"{HEAD_CONFIG} cannot be read: {error.errors()[0]['msg']}.") from error


def read_head(folder: Path, hidden_size: int, device: torch.device) -> Head | None:
    """The trained head of the artifact in `folder`; None for a model that generates. Raises AdapterMismatch."""
    config = read_config(folder)
    if config is None:
        return None
    head = Head(config, hidden_size, device)
    if not head.parameters:
        return head
    try:
        saved = load_file(folder / HEAD)
    except (FileNotFoundError, SafetensorError) as error:
        raise AdapterMismatch(f"{HEAD} is missing or broken.") from error
    wanted = {name: tuple(parameter.shape) for name, parameter in head.parameters.items()}
    if {name: tuple(tensor.shape) for name, tensor in saved.items()} != wanted:
        raise AdapterMismatch(f"{HEAD} has other shapes than {HEAD_CONFIG} says.")
    with torch.no_grad():
        for name, parameter in head.parameters.items():
            parameter.copy_(saved[name]).requires_grad_(False)
    return head


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
