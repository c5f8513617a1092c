"""What may run in processes side by side (`pytest -n 3`): files, but for those that share a server that starts slowly.

Not xdist's own `--dist loadgroup`, which loses the groups with pytest 9.2. Files that take long begin first.
"""

import re
from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

SHARED = {  # the session's fixture and how a file asks for it; the longest group first
    "production_set": re.compile(r"\bproduction_set: Production\b"),
    "vllm": re.compile(r"\bvllm: Vllm\b|getfixturevalue\(\"vllm\"\)"),
}


class SideBySide(LoadFileScheduling):
    """Hands out a file at a time, or all files of a shared server at once."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _shared(self.config.rootpath / file) or file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SideBySide:
    config.option.loadscopereorder = False
    return SideBySide(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """By file: those of shared servers, then what else is slow, then the rest."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    turns = {path: _turn(path, path in slow) for path in {item.path for item in items}}
    items.sort(key=lambda item: turns[item.path])


def _turn(file: Path, slow: bool) -> int:
    shared = _shared(file)
    return list(SHARED).index(shared) if shared else len(SHARED) + (not slow)


@cache  # asked for every test, several times
def _shared(file: Path) -> str | None:
    content = file.read_text(encoding="utf-8")
    return next((name for name, asks in SHARED.items() if asks.search(content)), None)
