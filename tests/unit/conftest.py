"""Fixtures of the trainer's unit tests."""

from collections.abc import Iterator

import pytest
import torch

from tests.given.tiny_models import make_tiny_base
from workers.model.load import LoadedBase, load_base, weights_digest


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    """A tiny base with random weights."""
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")), torch.device("cpu"))


@pytest.fixture
def base(loaded: LoadedBase) -> Iterator[LoadedBase]:
    """The base; once the jobs of a test have left, it is what it was."""
    yield loaded
    assert weights_digest(loaded.model) == loaded.hashes["weights"]
