"""A pytest plugin in the process of openai-python's tests: renews the seeds before each of them.

Standard library and pytest only: it runs in that suite's environment, not in ours.
"""

import os
import urllib.request
from collections.abc import Iterator

import pytest

RESET_URL = f"{os.environ['TEST_API_BASE_URL']}/_test/reset"


@pytest.fixture(autouse=True)
def _reseed() -> Iterator[None]:
    request = urllib.request.Request(RESET_URL, method="POST", data=b"", headers={"Connection": "close"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()
    yield
