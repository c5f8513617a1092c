"""LoReFT (Wu et al., 2024, arXiv 2404.03592): h + R^T (W h + b - R h) of the states h after chosen blocks.

R has orthonormal rows. Edited are the first and the last positions of each prompt; trained or generated tokens are left
alone. Shapes: B rows, T tokens, H hidden, R the subspace's dimensions, N edited positions of the batch.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from service.domain.errors import JobError
from service.domain.json import JsonObject
from service.recipes.tunings.loreft import LoreftSettings
from workers.tunings.base import TUNINGS, Chunk, Inputs, plain_inputs
from workers.tunings.blocks import blocks
from workers.tunings.own_format import OwnFormat
from workers.tunings.sites import OutputChange, Rows


@TUNINGS.of(LoreftSettings)
class LoreftTuning(OwnFormat):
    """A `Tuning`: R, W and b after each chosen block. W is initially R and b 0: no change before the first step.

    R is not trained itself, since a step would bend its rows: it is computed from the trained "rotation", which has its
    shape and any rows (`orthonormal`). So equal files give an equal R, and nothing but plain tensors is saved.
    """

    mixes_rows: ClassVar[bool] = True  # prompts are computed one by one; generated tokens are the base's

    def __init__(self, model: PreTrainedModel, name: str, settings: LoreftSettings) -> None:
        super().__init__(model, name, settings)
        self._settings = settings
        self._hidden_size: int = model.config.get_text_config().hidden_size
        self._hooks: list[RemovableHandle] = []
        self._edited: tuple[Tensor, Tensor] | None = None  # row_N and place_N in the batch that comes next

    @staticmethod
    def settings_of(config: JsonObject) -> LoreftSettings:
        """The tuning's settings from a saved adapter's config."""
        return LoreftSettings.model_validate({name: config[name] for name in ("r", "first", "last", "layers")})

    def memory_bytes(self) -> int:
        """Raises JobError where the settings do not fit the base."""
        one = 2 * self._settings.r * self._hidden_size + self._settings.r
        return len(self._chosen()) * one * torch.float32.itemsize

    def attach(self) -> None:
        """Raises JobError where the settings do not fit the base."""
        for path, block in self._chosen().items():
            device = next(block.parameters()).device
            rotation_RH = nn.Parameter(torch.empty(self._settings.r, self._hidden_size, device=device))
            nn.init.orthogonal_(rotation_RH)
            source_RH = nn.Parameter(orthonormal(rotation_RH).detach().clone())
            bias_R = nn.Parameter(torch.zeros(self._settings.r, device=device))
            names = (f"{path}.rotation", f"{path}.source.weight", f"{path}.source.bias")
            self._parameters |= zip(names, (rotation_RH, source_RH, bias_R), strict=True)
            self._hooks.append(block.register_forward_hook(OutputChange(self._edit(rotation_RH, source_RH, bias_R))))

    def activate(self, rows: Rows | None = None) -> None:
        self._edited = None  # until `inputs` says where the prompts are

    def deactivate(self) -> None:
        self._edited = None

    def detach(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._parameters, self._edited = [], {}, None

    def inputs(self, chunk: Chunk) -> Inputs:
        lengths_B1 = chunk.prompt_lengths_B[:, None]
        places_T = chunk.offset + torch.arange(chunk.input_ids_BT.shape[1], device=chunk.input_ids_BT.device)
        at_start_BT = places_T < self._settings.first
        at_end_BT = places_T >= lengths_B1 - self._settings.last
        rows_N, places_N = ((at_start_BT | at_end_BT) & (places_T < lengths_B1)).nonzero(as_tuple=True)
        if chunk.begins_B is not None:  # the base gets the rows one behind the other
            rows_N, places_N = torch.zeros_like(rows_N), chunk.begins_B[rows_N] + places_N
        self._edited = rows_N, places_N
        return plain_inputs(chunk)

    def _edit(self, rotation_RH: Tensor, source_RH: Tensor, bias_R: Tensor) -> Callable[[Tensor], Tensor]:
        def edit(states_BTH: Tensor) -> Tensor:
            if self._edited is None:
                return states_BTH
            h_NH = states_BTH[self._edited].float()
            r_RH = orthonormal(rotation_RH)
            # h + R^T (W h + b - R h);  W h - R h as (W - R) h, which is 0 to the last bit while W is R
            h_NH = h_NH + (h_NH @ (source_RH - r_RH).T + bias_R) @ r_RH
            edited_BTH = states_BTH.clone()
            edited_BTH[self._edited] = h_NH.to(states_BTH.dtype)
            return edited_BTH

        return edit

    def _chosen(self) -> dict[str, nn.Module]:
        found = blocks(self._base)
        if self._settings.r > self._hidden_size:
            raise JobError(
                "invalid_rank",
                f"The base's states have {self._hidden_size} numbers; a subspace of {self._settings.r} does not fit.",
                param="tuning.loreft.r",
            )
        if self._settings.layers == "all":
            return found
        if max(self._settings.layers) >= len(found):
            raise JobError(
                "invalid_layers",
                f"The base has layers 0 to {len(found) - 1}, not {max(self._settings.layers)}.",
                param="tuning.loreft.layers",
            )
        paths = list(found)
        return {paths[layer]: found[paths[layer]] for layer in sorted(set(self._settings.layers))}


def orthonormal(rows_RH: Tensor) -> Tensor:
    """The orthonormal rows that follow from these by Gram and Schmidt, computed as a QR decomposition.

    A^T = Q T with T upper triangular; where T's diagonal is positive there is one such Q, and it is A^T if A is
    orthonormal already.
    """
    q_HR, t_RR = torch.linalg.qr(rows_RH.T)
    r_RH: Tensor = (q_HR * t_RR.diagonal().sign()).T
    return r_RH
