"""The harness itself: what ends by itself comes back, what a test has ended does not."""

import time
from pathlib import Path

from tests.faults.processes import RESTART_SECONDS, Process, kept_running
from tests.given.running_service import wait_for


def process(folder: Path, program: str) -> Process:
    return Process("x", ["-c", program], {}, folder / "log")


def test_what_ends_by_itself_is_started_again(tmp_path: Path) -> None:
    brief = process(tmp_path, "print('here')")
    brief.start()
    with kept_running([brief]):
        wait_for(lambda: brief.log.read_text().count("here") >= 2, 30, "a second life")
    brief.kill_all()


def test_what_a_test_has_killed_stays_down(tmp_path: Path) -> None:
    lasting = process(tmp_path, "import time; print('here', flush=True); time.sleep(60)")
    lasting.start()
    with kept_running([lasting]):
        wait_for(lambda: "here" in lasting.log.read_text(), 30, "its start")
        lasting.kill_all()
        time.sleep(2 * RESTART_SECONDS)
        assert not lasting.running
