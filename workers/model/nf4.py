"""A base whose linear layers store their weights in 4 bits (NF4; Dettmers et al., 2023, arXiv 2305.14314, section 3).

Blocks of 64 weights, each scaled by its largest absolute value; every weight is the nearest of 16 numbers that are
equally likely under a normal distribution. bitsandbytes has the kernels for packing and unpacking. Its own layer is not
used: on some CPUs it repacks its weights at the first request, and the next training step would compute other bits.
Here a layer unpacks its weights at every call, forward and backward, to the same numbers whoever else uses the base.
Does not depend on jobs or tunings; `workers.model.load` quantises a base after its weights were hashed.
Shapes: O outputs, I inputs.
"""

import importlib.util
from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

BLOCK = 64  # weights that share a scale: 4 bits each and 32 for the scale are 4.5 bits a weight, 0.14 of float32
NAME = "nf4"
LIBRARY = "bitsandbytes"
DEVICES = ("cpu", "cuda")
LEAST_SHARE = 0.5  # of the weights in matrices besides embeddings: with fewer in linear layers little would be saved


class Nf4Linear(nn.Linear):
    """A frozen linear layer: y = W x + c with W unpacked from `packed` and `scales`."""

    packed: Tensor
    scales: Tensor

    def __init__(self, original: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = original.in_features, original.out_features
        self._dtype = original.weight.dtype
        packed, state = kernels().quantize_4bit(
            original.weight.detach().float().cpu(), blocksize=BLOCK, compress_statistics=False, quant_type=NAME
        )
        self.register_buffer("packed", packed)
        self.register_buffer("scales", state.absmax)
        self.register_buffer("_numbers", state.code, persistent=False)
        self.register_parameter("bias", original.bias)
        self.train(original.training)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # nn.Linear's is a parameter
        """weights_OI, unpacked now: a new tensor that nothing keeps."""
        state = kernels().QuantState(
            absmax=self.scales,
            shape=torch.Size((self.out_features, self.in_features)),
            code=self._numbers,
            blocksize=BLOCK,
            quant_type=NAME,
            dtype=self._dtype,
        )
        weights_OI: Tensor = kernels().dequantize_4bit(self.packed, state)
        return weights_OI

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Unpacked.apply(x, self)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias


class _Unpacked(torch.autograd.Function):
    """x -> W x. Keeps the packed weights for the backward pass, not the unpacked ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Nf4Linear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient @ ctx.layer.weight, None


def quantise(model: PreTrainedModel) -> None:
    """Stores the weights of the linear layers in 4 bits, all but the output layer's, one after another.

    Raises ValueError, in one sentence, where that cannot be.
    """
    layers = _linear_layers(model)
    _check_worth(model, layers)
    kernels()
    for path, layer in layers.items():
        above, _, child = path.rpartition(".")
        setattr(model.get_submodule(above), child, Nf4Linear(layer))


def unpack(model: PreTrainedModel) -> None:
    """Undoes `quantise`, one layer after another: plain layers with the weights that the packed ones compute with."""
    packed = {path: module for path, module in model.named_modules() if isinstance(module, Nf4Linear)}
    for path, layer in packed.items():
        above, _, child = path.rpartition(".")
        setattr(model.get_submodule(above), child, _plain(layer))


def packed_layers(model: PreTrainedModel) -> list[nn.Linear]:
    """The layers whose weights `quantise` packs."""
    return list(_linear_layers(model).values())


def packed_bytes(weights: int) -> int:
    """Of a layer with so many weights, once they are packed: half a byte each, and a float32 for each block."""
    return -(-weights // 2) + -(-weights // BLOCK) * torch.float32.itemsize


def check_device(device: torch.device) -> None:
    """Raises ValueError for a device without kernels."""
    if device.type not in DEVICES:
        raise ValueError(
            f'quantization = "{NAME}" computes on {" and ".join(DEVICES)}, not on {device.type}: leave it out'
        )


def num_parameters(model: nn.Module) -> int:
    """Of the model as its files have it, however they are stored in memory."""
    stored = sum(layer.in_features * layer.out_features for layer in model.modules() if isinstance(layer, Nf4Linear))
    return stored + sum(parameter.numel() for parameter in model.parameters())


def _plain(layer: Nf4Linear) -> nn.Linear:
    weights_OI = layer.weight
    plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    plain.weight = nn.Parameter(weights_OI, requires_grad=False)
    plain.bias = layer.bias
    return plain.train(layer.training)


def _linear_layers(model: PreTrainedModel) -> dict[str, nn.Linear]:
    head: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return {
        path: module for path, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head
    }


def _check_worth(model: PreTrainedModel, layers: dict[str, nn.Linear]) -> None:
    """Some architectures have their weights elsewhere: GPT-2 in convolutions, Mixtral's experts in one tensor."""
    outside = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    outside |= set() if head is None else {id(parameter) for parameter in head.parameters()}
    matrices = {id(p): p for p in model.parameters() if p.dim() > 1 and id(p) not in outside}
    inside = sum(layer.weight.numel() for layer in layers.values())
    total = sum(parameter.numel() for parameter in matrices.values())
    if inside < LEAST_SHARE * total or not inside:
        raise ValueError(
            f"only {inside / max(1, total):.0%} of the weights of {type(model).__name__} are in linear layers, "
            f'which quantization = "{NAME}" stores in 4 bits: leave it out'
        )


@cache
def kernels() -> ModuleType:
    """bitsandbytes, imported late: it is an extra, and slow to import (`service.processes.imports`)."""
    if importlib.util.find_spec(LIBRARY) is None:
        raise ValueError(f'quantization = "{NAME}" needs {LIBRARY}, which is not installed: pip install luthier[nf4]')
    return importlib.import_module(f"{LIBRARY}.functional")
