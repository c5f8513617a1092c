"""What tests of several tunings share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what a module's tests save of every tuning and base."""
    path: Path = tmp_path_factory.mktemp("cells")
    return path
