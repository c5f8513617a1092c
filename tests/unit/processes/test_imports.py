"""What no process imports before it needs it: a package that a library takes along where it happens to be installed."""

import asyncio
import importlib.util
import json
import os
import sys
from asyncio.subprocess import PIPE

import pytest

from service.processes.forks import start_fork
from service.processes.imports import without

SECONDS = 120.0  # the fork server may have to import first


def test_packages_are_missing_inside_and_there_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with without(["this", "json"]):
        assert importlib.util.find_spec("this") is None
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("this")
        assert importlib.import_module("json") is json
    assert importlib.util.find_spec("this") is not None


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
async def test_an_ordinary_base_is_tuned_without_the_kernels_for_four_bits_and_these_load_late() -> None:
    fork = await start_fork([sys.executable, "-m", "tests.given.forked", "tune"], os.environ, stdout=PIPE)
    assert fork.stdout is not None
    async with asyncio.timeout(SECONDS):
        before, after = json.loads(await fork.stdout.readline())
        assert await fork.wait() == 0
    assert before == []
    assert "bitsandbytes" in after
