"""The child's end of the pipes, in a process of its own."""

import subprocess
import sys

ENDLESS = """
from workers.trainer.process.channel import Channel
from workers.trainer.protocol import Turn
channel = Channel(lease_seconds=60.0)
while True:
    channel.say(Turn(job_id="one"))
"""


def test_a_parent_that_is_gone_in_the_middle_of_a_report_is_an_end_like_any_other() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.readline()
        child.stdout.close()  # stdin stays open: a kernel closes them one after the other
        assert child.wait(20) == 0
        assert child.stderr.read() == b""
