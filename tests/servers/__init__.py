"""The real servers of production, for tests: one file each, with a class and a session fixture of the same noun.

A server lives in a folder of its own, listens on loopback only, and is started at its first use. Its class has `start`,
`stop` (clean), `kill` (SIGKILL) and what a client needs to know; `start` after either finds the data again. Whoever
breaks a server on purpose starts one of its own instead of the session's.
"""

import os
from typing import NoReturn

import pytest


def missing(server: str, remedy: str) -> NoReturn:
    """This machine has no such server: a failure in CI, elsewhere a skip that says how to get it."""
    message = f"no {server} on this machine: {remedy}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
