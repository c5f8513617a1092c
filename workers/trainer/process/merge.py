"""A tuned model's weights in the base's own places, as a folder that transformers loads: `python -m ... FOLDER`.

The base is loaded on the CPU, in its own type. Reads `order.json` and `adapter/`, writes `merged/` and `result.json`.
"""

import sys
from pathlib import Path

import torch

from service.domain.errors import JobError
from service.processes.parent import end_with_parent
from workers.files.disk import disk_errors
from workers.model.load import BaseUnusable, LoadedBase, load_or_explain
from workers.trainer.errands import ORDER, RESULT, MergeOrder, MergeResult, Refusal
from workers.trainer.process.threads import available_cpus, usual_threads
from workers.tunings import AdapterMismatch, open_tuning
from workers.tunings.base import MergeableTuning

ADAPTER = "merged"
SHARD = "2GB"  # of the weights: one is packed into the archive at a time


def main() -> None:
    """Entry of the process."""
    end_with_parent()
    folder = Path(sys.argv[1])
    order = MergeOrder.model_validate_json((folder / ORDER).read_bytes())
    (folder / RESULT).write_text(merge(order, folder).model_dump_json(), encoding="utf-8")


def merge(order: MergeOrder, folder: Path) -> MergeResult:
    """The adapter in `folder / "adapter"`, merged."""
    try:
        with disk_errors():
            try:
                loaded = load_or_explain(order.base, torch.device("cpu"))
            except BaseUnusable as error:
                return MergeResult(base_unusable=str(error))
            parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
            torch.set_num_threads(order.threads or usual_threads(parameters, available_cpus()))
            if loaded.hashes["weights"] != order.weights:
                raise _refused("its base here has other weights than those that it was trained on")
            _write(loaded, folder / "adapter", folder / "merged")
    except JobError as error:
        return MergeResult(refusal=Refusal(code=error.code, message=error.message, param=error.param))
    return MergeResult()


def _write(loaded: LoadedBase, adapter: Path, target: Path) -> None:
    try:
        tuning = open_tuning(adapter, loaded.model, ADAPTER)
    except AdapterMismatch as error:
        raise _refused(str(error)) from error
    if not isinstance(tuning, MergeableTuning):
        raise _refused("its tuning is no difference of the base's weights")
    merged = tuning.merged()
    if not all(bool(tensor.isfinite().all()) for tensor in merged.parameters()):
        raise _refused("the sum of both has values that are not finite numbers")
    merged.save_pretrained(target, max_shard_size=SHARD)
    loaded.tokenizer.save_pretrained(target)


def _refused(reason: str) -> JobError:
    return JobError("not_mergeable", f"{reason[:1].upper()}{reason[1:].rstrip('.')}.", "format")


if __name__ == "__main__":
    main()
