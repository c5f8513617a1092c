"""vLLM's own server is bounded by the plugin: its limits of headers are for a parser that it does not use."""

import socket

import pytest

from tests.servers.vllm import Vllm

pytestmark = pytest.mark.slow


def test_a_header_without_end_is_refused_by_vllm_too(vllm: Vllm) -> None:
    with socket.create_connection(("127.0.0.1", vllm.port), timeout=20) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Long: ")
        sent = 0
        with pytest.raises(ConnectionError):
            for _ in range(200):
                connection.sendall(b"x" * 65_536)
                sent += 65_536
        assert sent < 100 * 65_536
