"""What tests let a fork server run: `python -m tests.given.forked WORD...`, one thing for each first word."""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path


def report() -> None:
    """How this process was started, as a line of JSON, and then what is on stdin."""
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
                "blocked": [signal.Signals(number).name for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
                "handlers": [repr(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGHUP)],
                "interrupted": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
            }
        )
        + "\n"
    )
    sys.stdout.flush()
    sys.stdout.write(sys.stdin.read().upper())


def tune() -> None:
    """Gives a base a LoRA, and says before and after the kernels for 4 bits are loaded which slow packages are."""
    import torch  # noqa: PLC0415  here only: the other words need nothing of it

    from service.recipes.catalogue import read_catalogue  # noqa: PLC0415
    from service.recipes.tuning import tuning_of  # noqa: PLC0415
    from service.settings.settings import Settings  # noqa: PLC0415
    from tests.given.tunings import KINDS  # noqa: PLC0415
    from workers.model.load import load_base  # noqa: PLC0415
    from workers.model.nf4 import kernels  # noqa: PLC0415
    from workers.tunings import create_tuning  # noqa: PLC0415

    base = load_base(read_catalogue(Settings().catalogue).bases["luthier-tiny"], torch.device("cpu"))
    create_tuning(tuning_of(KINDS["lora"]), base.model, "a").attach()
    slow = ("bitsandbytes", "torch._inductor.compile_fx")
    without = [name for name in slow if name in sys.modules]
    kernels()
    sys.stdout.write(json.dumps([without, [name for name in slow if name in sys.modules]]) + "\n")


class Left:
    """Says so when an interpreter that ends takes it apart."""

    def __del__(self) -> None:
        os.write(1, b"taken apart\n")


LEFT: list[Left] = []


def end() -> None:
    """Leaves a thread that runs for a moment, something to do at the end, output that waits, and an object."""
    LEFT.append(Left())
    atexit.register(sys.stdout.write, "at the end\n")

    def go_on() -> None:
        time.sleep(0.2)
        sys.stdout.write("the thread\n")

    threading.Thread(target=go_on).start()
    sys.exit("a reason")


def main() -> None:
    word = sys.argv[1]
    if word == "report":
        report()
    elif word == "tune":
        tune()
    elif word == "exit":
        sys.exit(int(sys.argv[2]))
    elif word == "end":
        end()
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
