"""The proxies that `benchmarks.gateway` compares with, in .cache/gateway, where nothing of the project is.

`python -m benchmarks.gateway_peers` installs what is missing: nginx from Debian's or Ubuntu's package, unpacked and not
installed, so nothing starts by itself; and LiteLLM's proxy (0.6 GB) in an environment of its own. Needs the network.
"""

import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.given.running_service import ROOT, answers, free_ports, wait_for

FOLDER = ROOT / ".cache" / "gateway"
NGINX = FOLDER / "nginx" / "usr" / "sbin" / "nginx"
LITELLM = FOLDER / "litellm" / "bin" / "litellm"
LITELLM_VERSION = "1.108.7"
REMEDY = "run python -m benchmarks.gateway_peers"
INSTALL_SECONDS = 900.0
# A worker, as LiteLLM has one; connections to the engine are kept, and a stream's bytes pass as they come.
NGINX_CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000;
  upstream engine {{ server {engine}; keepalive 256; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def install() -> None:
    """Installs what is missing. Raises CalledProcessError."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not NGINX.exists():
        with tempfile.TemporaryDirectory() as folder:
            _run("apt-get", "download", "nginx", folder=Path(folder))
            (package,) = Path(folder).glob("nginx*.deb")
            _run("dpkg", "-x", str(package), str(FOLDER / "nginx"))
    if not LITELLM.exists():
        _run(sys.executable, "-m", "venv", "--clear", str(FOLDER / "litellm"))
        pip = [str(FOLDER / "litellm" / "bin" / "pip"), "--disable-pip-version-check", "install", "--quiet"]
        _run(*pip, "--no-compile", f"litellm[proxy]=={LITELLM_VERSION}")


def installed(program: Path) -> Path | None:
    """The program, where it is there."""
    return program if program.exists() else None


@contextmanager
def nginx(program: Path, engine: str) -> Iterator[tuple[str, str, psutil.Process]]:
    """nginx as a plain proxy in front of the engine: its URL, no key, the process that passes requests on."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # its worker may be another user
        configuration = Path(folder) / "nginx.conf"
        configuration.write_text(
            NGINX_CONFIGURATION.format(folder=folder, port=port, engine=engine.removeprefix("http://")),
            encoding="utf-8",
        )
        command = [str(program), "-p", folder, "-e", f"{folder}/error.log", "-c", str(configuration)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            url = f"http://127.0.0.1:{port}"
            try:
                wait_for(lambda: answers(f"{url}/health"), 60, "nginx")
                (worker,) = psutil.Process(process.pid).children()
                yield f"{url}/v1", "none", worker
            finally:
                process.terminate()


@contextmanager
def litellm(program: Path, engine: str) -> Iterator[tuple[str, str, psutil.Process]]:
    """LiteLLM's proxy with one worker and no database, in front of the engine: its URL, key, process."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        model = {"model": "openai/luthier-tiny", "api_base": f"{engine}/v1", "api_key": "none"}
        key = f"sk-{secrets.token_hex(32)}"
        listed = {
            "model_list": [{"model_name": "luthier-tiny", "litellm_params": model}],
            "general_settings": {"master_key": key},
        }
        config.write_text(json.dumps(listed), encoding="utf-8")  # JSON is YAML
        arguments = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            url = f"http://127.0.0.1:{port}"
            try:
                wait_for(lambda: process.poll() is not None or answers(f"{url}/health/liveliness"), 240, "LiteLLM")
                yield f"{url}/v1", key, psutil.Process(process.pid)
            finally:
                process.kill()


def _run(*command: str, folder: Path = ROOT) -> None:
    subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_SECONDS)


if __name__ == "__main__":
    install()
