"""The engine as a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.given.tiny_models import make_tiny_base

CATALOGUE = """
[[base]]
id = "tiny"
source = "base"
context_tokens = 256
learning_rate = { lora = 1e-2 }
serving = { tunings = ["lora"] }
"""


@pytest.mark.slow
def test_worker_command_serves_until_its_parent_is_gone(tmp_path: Path) -> None:
    make_tiny_base(tmp_path / "base")
    (tmp_path / "bases.toml").write_text(CATALOGUE, encoding="utf-8")
    settings = {
        "LUTHIER_DATA_DIR": str(tmp_path / "data"),
        "LUTHIER_CATALOGUE": str(tmp_path / "bases.toml"),
        "LUTHIER_ENGINE_PORT": "0",
        "LUTHIER_ENGINE_API_KEY": "secret",
    }
    command = [sys.executable, "-m", "workers", "engine", "--die-with-parent"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | settings
    ) as process:
        assert process.stdin is not None and process.stderr is not None
        ready = next(line for line in process.stderr if "event=engine.ready" in line)
        port = re.search(r"port=(\d+)", ready)
        assert port is not None
        body = {"model": "tiny", "prompt": "Once", "max_tokens": 3}
        url, headers = f"http://127.0.0.1:{port[1]}/v1/completions", {"Authorization": "Bearer secret"}
        assert httpx.post(url, json=body, timeout=30).status_code == 401
        many = [("X-A", "b")] * 200
        assert httpx.post(url, json=body, headers=many, timeout=30).status_code == 431
        answer = httpx.post(url, json=body, headers=headers, timeout=30).json()
        assert answer["usage"]["completion_tokens"] <= 3
        process.stdin.close()
        process.wait(30)
