"""The blocks of a decoder, found by the base's structure: a list of as many modules as the config says layers.

For tunings that choose layers by number. Depends on no family's names.
"""

from torch import nn
from transformers import PreTrainedModel

from service.domain.errors import JobError
from workers.tunings.sites import untouched


def blocks(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The blocks by their paths, the lowest first. Raises JobError (`unknown_structure`) where they cannot be told."""
    count = model.config.get_text_config().num_hidden_layers
    with untouched(model):
        lists = {
            path: module
            for path, module in model.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == count
        }
    outermost = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]
    if len(outermost) != 1:
        raise unknown_structure(model, f"it has {len(outermost)} lists of {count} blocks, not one")
    (path,) = outermost
    return {f"{path}.{number}": block for number, block in enumerate(lists[path])}


def unknown_structure(model: PreTrainedModel, why: str) -> JobError:
    """The error of a job whose tuning needs to know more of the base than its structure shows."""
    family = model.config.get_text_config().model_type
    return JobError(
        "unknown_structure",
        f"This tuning cannot find its place in a base of the family '{family}': {why}. Use another one, such as lora.",
        param="tuning.type",
    )
