"""The vLLM that the tests of a session share.

Apart from tests/servers/vllm.py, which imports torch: every run of pytest loads the fixtures, and few need tensors.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.vllm import Vllm


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Vllm]":
    """One for the session, with an empty store and room for some 40 adapters of the tests.

    The last of its files, tests/faults/test_vllm.py, breaks it for good.
    """
    from tests.servers.vllm import Vllm  # noqa: PLC0415

    server = Vllm(tmp_path_factory.mktemp("vllm"), {"engine_cache_bytes": 4 * 2**20, "vllm_drain_seconds": 30})
    try:
        server.start()
        yield server
        assert server.killed or server.stop() == 0, server.log[-4000:]
    finally:
        server.end()
