"""The tests' own Valkey keeps its promises: data outlives a kill, and an end is an end."""

import pytest

from tests.servers.valkey import Valkey

pytestmark = pytest.mark.slow


def test_what_it_knew_is_there_after_a_kill_and_gone_after_a_flush(own_valkey: Valkey) -> None:
    assert own_valkey.command("SET", "luthier", "here") == b"+OK\r\n"
    own_valkey.kill()
    assert own_valkey.command("PING") == b""
    own_valkey.start()
    assert own_valkey.command("GET", "luthier") == b"$4\r\nhere\r\n"
    own_valkey.flush()
    own_valkey.stop()
    own_valkey.start()
    assert own_valkey.command("GET", "luthier") == b"$-1\r\n"
