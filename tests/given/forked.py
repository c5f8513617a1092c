"""What tests let a fork server run: `python -m tests.given.forked WORD...`, one thing for each first word."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def tell() -> None:
    """How this process was started, as a line of JSON, and then what stands on stdin."""
    sys.stdout.write(
        json.dumps(
            {
                "arguments": sys.argv[1:],
                "environment": dict(os.environ),
                "folder": str(Path.cwd()),
                "pid": os.getpid(),
                "group": os.getpgid(0),
                "open": sorted(int(number) for number in os.listdir("/proc/self/fd"))[:-1],  # noqa: PTH208
                "loaded": "this" in sys.modules,
            }
        )
        + "\n"
    )
    sys.stdout.flush()
    sys.stdout.write(sys.stdin.read().upper())


def main() -> None:
    word = sys.argv[1]
    if word == "tell":
        tell()
    elif word == "exit":
        sys.exit(int(sys.argv[2]))
    elif word == "raise":
        raise RuntimeError("on purpose")
    elif word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "stay":
        left = subprocess.Popen(["sleep", "60"])
        sys.stdout.write(f"{left.pid}\n")
        sys.stdout.flush()
        time.sleep(60)


if __name__ == "__main__":
    main()
