"""Opens saved adapters in a process of its own: `python -m tests.given.opened FOLDER` names those that differ.

FOLDER has one folder for each family and kind, `<family>.<kind>`, with the adapter and the logits to reach; of an
encoder, with a row and what the adapter's head has to return of it.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.given.compatibility import encoder, family
from tests.given.encoders import ENCODERS
from tests.given.families import ROWS
from tests.given.tuned import active_logits, classified
from workers.model.adapters import Adapters
from workers.tunings import open_tuning

LOGITS = "logits.safetensors"


def main() -> None:
    """One line for each adapter that gives other logits than those saved beside it; the last says how many were
    opened."""
    folders = sorted(Path(sys.argv[1]).iterdir())
    for folder in folders:
        name, _, _ = folder.name.partition(".")
        same = _classifies if name in ENCODERS else _writes
        if not same(name, folder / "adapter", load_file(folder / LOGITS)):
            sys.stdout.write(f"different: {folder.name}\n")
    assert sys.modules.get("bitsandbytes") is None, "imported for nothing: workers/tunings/__init__.py"
    sys.stdout.write(f"opened: {len(folders)}\n")


def _writes(name: str, adapter: Path, expected: dict[str, Tensor]) -> bool:
    tuning = open_tuning(adapter, family(name).model, "opened")
    found = active_logits(tuning, ROWS)
    tuning.detach()
    return torch.equal(found, expected["logits"])


def _classifies(name: str, adapter: Path, expected: dict[str, Tensor]) -> bool:
    base = encoder(name)
    adapters = Adapters(base.model)
    attached = adapters.attach(adapter)
    found = classified(attached, base, expected["ids"].tolist())
    adapters.detach(attached)
    return found == expected["values"].tolist()


if __name__ == "__main__":
    main()
