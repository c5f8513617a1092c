"""Imports without what they would take along: a package that is installed for other reasons, here not needed, and slow.

Needs only the standard library: the fork server uses it, and so does whoever imports PEFT without one.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# Where it is installed PEFT imports it for layers of its own, and it has torch's compiler imported: 1.4 CPU seconds and
# 47 MB in every process. `workers.model.nf4` imports it for bases in 4 bits, and no other base needs it.
UNWANTED = ("bitsandbytes",)


@contextmanager
def without(packages: Sequence[str]) -> Iterator[None]:
    """While the block lasts these packages are not installed for whoever asks. Those imported before stay as they are.

    None in `sys.modules` is Python's own way to make an import raise ModuleNotFoundError.
    """
    hidden = [package for package in packages if package not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]  # typeshed has no None here
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]
