"""`python -m workers.engines.vllm FOLDER`: writes what `workers.engines.vllm.ends` finds out into the folder.

Run by `serve` in vLLM's environment, before vLLM starts. Tokenizers and chat templates need no tensors: without torch
transformers is imported in 1.5 CPU seconds instead of 4.5.
"""

import sys
from pathlib import Path

from service.processes.imports import without
from service.recipes.catalogue import read_catalogue
from service.settings.settings import Settings


def main() -> None:
    """The base is the settings' own. Raises what `write_ends` raises."""
    settings = Settings()
    base = read_catalogue(settings.catalogue).of_engine(settings.engine_base)
    with without(["torch"]):  # transformers looks for it while it is imported
        from workers.engines.vllm.ends import write_ends  # noqa: PLC0415

        write_ends(base, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
