"""A tuned model's weights in the base's own places, as a folder that transformers loads: `python -m ... FOLDER`.

The base has its own type; weights in 4 bits are unpacked before the difference is added. Reads `order.json` and
`adapter/`, writes `merged/` and `result.json`.
"""

from pathlib import Path

from service.domain.errors import JobError
from workers.model import nf4
from workers.model.load import WEIGHTS, LoadedBase
from workers.trainer.errands import MergeOrder, MergeResult
from workers.trainer.process.errand import carry_out, loaded_base, result_of
from workers.tunings import AdapterMismatch, open_tuning
from workers.tunings.base import MergeableTuning

ADAPTER = "merged"
SHARD = "2GB"  # of the weights: one is packed into the archive at a time


def merge(order: MergeOrder, folder: Path) -> MergeResult:
    """The adapter in `folder / "adapter"`, merged."""

    def task() -> MergeResult:
        loaded = loaded_base(order)
        if any(loaded.hashes.get(name) != order.hashes.get(name) for name in WEIGHTS):
            raise _refused("its base here has other weights than those that it was trained on")
        nf4.unpack(loaded.model)  # PEFT adds differences to parameters in their place
        _write(loaded, folder / "adapter", folder / "merged")
        return MergeResult()

    return result_of(MergeResult, task)


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
    carry_out(MergeOrder, merge)
