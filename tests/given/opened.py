"""Opens saved adapters in a process of its own: `python -m tests.given.opened FOLDER` names those that differ.

FOLDER has one folder for each family and kind, `<family>.<kind>`, with the adapter and the logits to reach.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.given.compatibility import family
from tests.given.families import ROWS
from tests.given.tuned import active_logits
from workers.tunings import open_tuning

LOGITS = "logits.safetensors"


def main() -> None:
    """One line for each adapter that gives other logits than those saved beside it; the last says how many were
    opened."""
    folders = sorted(Path(sys.argv[1]).iterdir())
    for folder in folders:
        name, _, _ = folder.name.partition(".")
        tuning = open_tuning(folder / "adapter", family(name).model, "opened")
        if not torch.equal(active_logits(tuning, ROWS), load_file(folder / LOGITS)["logits"]):
            sys.stdout.write(f"different: {folder.name}\n")
        tuning.detach()
    sys.stdout.write(f"opened: {len(folders)}\n")


if __name__ == "__main__":
    main()
