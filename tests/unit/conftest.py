"""Fixtures of the trainer's unit tests. What imports torch is imported late: most of these tests need no tensor."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from workers.model.load import LoadedBase


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> "LoadedBase":
    """A tiny base with random weights."""
    from tests.given.engines import load_tiny  # noqa: PLC0415

    return load_tiny(tmp_path_factory.mktemp("base"))[1]


@pytest.fixture
def base(loaded: "LoadedBase") -> "Iterator[LoadedBase]":
    """The base; once the jobs of a test have left, it is what it was."""
    from workers.model.load import weights_digest  # noqa: PLC0415

    yield loaded
    assert weights_digest(loaded.model) == loaded.hashes["weights"]
