"""What may run in processes side by side (`pytest -n 3`): files, but for those that share a server that starts slowly.

Such a server ends with the last of them. Not xdist's own `--dist loadgroup`, which loses the groups with pytest 9.2.
Files that take long begin first, so that the processes end together: how long each took is in tests/seconds.toml, which
`--record-seconds` writes again. Every run of several files ends with the ten longest.
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Generator, Mapping
from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

SHARED = {  # the session's fixture and how a file asks for it
    "shared_service": re.compile(r"\bshared_service: RunningService\b"),
    "measured_service": re.compile(r"\bmeasured_service: RunningService\b"),
    "production_set": re.compile(r"\bproduction_set: Production\b"),
    "vllm": re.compile(r"\bvllm: Vllm\b|getfixturevalue\(\"vllm\"\)"),
    "radosgw": re.compile(r"\bradosgw: Radosgw\b|getfixturevalue\(\"radosgw\"\)"),
}
TABLE = Path(__file__).with_name("seconds.toml")
UNKNOWN_SECONDS = {True: 60.0, False: 1.0}  # of a file that is not in the table: slow, or not
SHOWN = 10
LEAST_SECONDS = 1.0  # what takes less is not worth a line of the table


class SideBySide(LoadFileScheduling):
    """Hands out a file at a time, or all files of a shared server at once."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _shared(self.config.rootpath / file) or file


class Seconds:
    """How long the tests of each file took; what a session shares counts where it is first used."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid.partition("::")[0]] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        longest = sorted(self._seconds.items(), key=lambda one: -one[1])
        if len(longest) > 1:
            terminalreporter.section(f"the {min(SHOWN, len(longest))} longest of {len(longest)} files")
            for file, seconds in longest[:SHOWN]:
                terminalreporter.write_line(f"{seconds:8.1f} s  {file}")
        if self._config.getoption("record_seconds"):
            TABLE.write_text(table(_seconds_of_before() | self._seconds, self._config.rootpath), encoding="utf-8")


def table(seconds: Mapping[str, float], root: Path) -> str:
    """The text of the table: the files that are there and take long enough to matter."""
    lines = [
        f'"{file}" = {round(took)}'
        for file, took in sorted(seconds.items())
        if took >= LEAST_SECONDS and (root / file).is_file()
    ]
    head = "# Seconds of each test file in `make test`; `make test-seconds` rewrites it.\n"
    return head + "\n".join(lines) + "\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-seconds", action="store_true", help=f"write {TABLE.name} from this run")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the process that hears of all tests
        config.pluginmanager.register(Seconds(config), "seconds of files")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SideBySide:
    config.option.loadscopereorder = False
    return SideBySide(config, log)


@pytest.hookimpl(trylast=True)  # when `-m` has chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """By file, or by the server that files share: the longest first."""
    before = _seconds_of_before()
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    took: defaultdict[str, float] = defaultdict(float)
    for path in {item.path for item in items}:
        file = path.relative_to(config.rootpath).as_posix()
        took[_shared(path) or str(path)] += before.get(file, UNKNOWN_SECONDS[path in slow])
    items.sort(key=lambda item: (-took[unit := _shared(item.path) or str(item.path)], unit))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """Ends a shared server with the last test of its files: until the session ends it would only take CPU time.

    An S3 server takes 3 CPU seconds a minute. A later test that asked for it, which there is none of, would start it.
    """
    yield
    shared = _shared(item.path)
    if shared is not None and nextitem is not None and _shared(nextitem.path) != shared:
        for fixture in item.session._fixturemanager.getfixturedefs(shared, item) or ():
            fixture.finish(item._request)  # type: ignore[attr-defined]


def _seconds_of_before() -> dict[str, float]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else {}


@cache  # asked for every test, several times
def _shared(file: Path) -> str | None:
    content = file.read_text(encoding="utf-8")
    return next((name for name, asks in SHARED.items() if asks.search(content)), None)
