"""The blocks of a base and their sublayers, found by the base's structure rather than by its family.

Blocks are a list of as many modules as the config says layers; an encoder-decoder has one such list on each side. In
each block, what has "attention" in its name is an attention and what remains is the feed-forward; a sublayer's output
is its last linear layer back to the hidden size.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from service.domain.errors import JobError
from service.recipes.tuning import TUNINGS
from workers.tunings.sites import untouched

_ATTENTION = re.compile("attn|attention", re.IGNORECASE)
_EXPERTS = re.compile("expert", re.IGNORECASE)


@dataclass(frozen=True)
class Sublayers:
    """The paths of the modules whose outputs a block adds to its residual: each takes and returns states_BTH.

    A decoder beside an encoder attends to itself, then to the encoder.
    """

    attentions: tuple[str, ...]
    feed_forward: str


def blocks(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The blocks by their paths, the lowest first; of an encoder-decoder the encoder's, then the decoder's.

    Raises JobError (`unknown_structure`) where they cannot be told.
    """
    count = model.config.get_text_config().num_hidden_layers
    with untouched(model):
        lists = {
            path: module
            for path, module in model.named_modules()
            if isinstance(module, nn.ModuleList) and (len(module) == count or model.config.is_encoder_decoder)
        }
    outermost = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]
    expected = 2 if model.config.is_encoder_decoder else 1
    if len(outermost) != expected:
        raise unknown_structure(model, f"it has {len(outermost)} lists of {count} blocks, not {expected}")
    return {f"{path}.{number}": block for path in outermost for number, block in enumerate(lists[path])}


def sublayers(model: PreTrainedModel) -> list[Sublayers]:
    """Of every block, the lowest first. Raises JobError (`unknown_structure`) where they cannot be told."""
    found = blocks(model)
    with untouched(model):
        return [_sublayers(model, path, block) for path, block in found.items()]


def _sublayers(model: PreTrainedModel, path: str, block: nn.Module) -> Sublayers:
    attentions, feed_forward = {}, ""
    for name in _outputs(block, model.config.get_text_config().hidden_size):
        if found := _ATTENTION.search(name):
            attentions[name[: name.find(".", found.end())]] = name  # by the path of the attention
        else:
            feed_forward = name
    experts = [name for name, _ in block.named_modules() if _EXPERTS.search(name)]
    if experts:  # their outputs are summed: only the whole adds to the residual
        feed_forward = experts[0].partition(".")[0]
        _check_plain(model, block.get_submodule(feed_forward))
    if not attentions or not feed_forward:
        missing = "attention" if not attentions else "feed-forward"
        raise unknown_structure(model, f"its blocks have no {missing} that ends in a linear layer")
    return Sublayers(tuple(f"{path}.{name}" for name in attentions.values()), f"{path}.{feed_forward}")


def _outputs(block: nn.Module, hidden_size: int) -> Iterator[str]:
    """The paths within the block of linear layers to the hidden size."""
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear) and module.out_features == hidden_size:
            yield name
        if isinstance(module, Conv1D) and module.nf == hidden_size:
            yield name


@torch.no_grad()
def _check_plain(model: PreTrainedModel, experts: nn.Module) -> None:
    """Raises JobError unless the module returns one tensor of the shape that it gets."""
    parameter = next(experts.parameters())
    states_11H = parameter.new_zeros(1, 1, model.config.get_text_config().hidden_size)
    output = experts(states_11H)
    if not isinstance(output, Tensor) or output.shape != states_11H.shape:
        raise unknown_structure(model, "its experts return more than their sum")


def unknown_structure(model: PreTrainedModel, why: str) -> JobError:
    """The error of a job whose tuning needs to know more of the base than its structure shows."""
    family = model.config.get_text_config().model_type
    return JobError(
        "unknown_structure",
        f"This tuning cannot find its place in a base of the family '{family}': {why}. Use another one, such as "
        f"{TUNINGS.default.name}.",
        param="tuning.type",
    )
