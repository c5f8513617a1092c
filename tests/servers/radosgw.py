"""A real S3 server: Ceph's gateway `radosgw` on a cluster of one monitor and one disk, all on loopback.

`tests/servers/install_radosgw.sh` installs it. Needs no root and no systemd; the first start takes about 15 seconds, a
later one 5. The processes end with the thread that started them, whatever happens to it.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from tests.given.running_service import free_ports
from tests.servers import missing

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin", "setpriv")
START_SECONDS = 90.0
STOP_SECONDS = 15.0
COMMAND_SECONDS = 60.0
# Without authentication inside the cluster, which nobody but this process reaches; "crc", because the default of the
# monitors is encryption, which needs keys. A killed gateway is forgotten after 3 seconds, not 30, in which the next one
# could make no bucket. Freed bytes are collected at once: by default after two hours, and the disk
# is full before. Without tcp_nodelay every small answer takes 45 ms.
CONFIGURATION = """[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{monitor_port}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms mon service mode = crc
ms mon cluster mode = crc
run dir = {folder}
admin socket =
pid file =
crash dir = {folder}/crash
log file = {folder}/log/$name.log
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
mon allow pool size one = true
mon max pg per osd = 2000
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd crush chooseleaf type = 0
osd objectstore = bluestore
osd client watch timeout = 3
bluestore block size = 34359738368
bluestore block create = true
bluestore cache autotune = false
bluestore cache size = 134217728
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw thread pool size = 64
rgw gc obj min wait = 10
rgw gc processor period = 10
rgw gc processor max time = 10
"""


class Radosgw:
    """One cluster in one folder; may be started and stopped several times, and finds its objects again."""

    access_key = "tests"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port, self._monitor_port = free_ports(2)
        self.secret_key = secrets.token_urlsafe(24)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """Luthier's settings for this server, without the URL of a bucket."""
        return {
            "storage_endpoint_url": self.endpoint,
            "storage_access_key_id": self.access_key,
            "storage_secret_access_key": self.secret_key,
        }

    def start(self) -> None:
        """Returns when the gateway answers."""
        fresh = not (self._folder / "mon").exists()
        if fresh:
            self._prepare()
        self._spawn("monitor", "ceph-mon", "-i", "a", "-f")
        self._run("ceph", "-s", "--connect-timeout", "30")
        if fresh:
            self._run("ceph", "osd", "create")
            self._run("ceph-osd", "-i", "0", "--mkfs")
        self._spawn("disk", "ceph-osd", "-i", "0", "-f")
        self._wait_for(lambda: " 1 up" in self._run("ceph", "osd", "stat"), "the disk")
        self._spawn("gateway", "radosgw", "-n", "client.rgw", "-f")
        self._wait_for(lambda: _listens(self.port), "the gateway")
        if fresh:
            user = ["--uid=tests", "--display-name=tests"]
            keys = [f"--access-key={self.access_key}", f"--secret-key={self.secret_key}"]
            self._run("radosgw-admin", "user", "create", *user, *keys)

    def stop(self) -> None:
        """Ends gateway, disk and monitor cleanly."""
        for name in ("gateway", "disk", "monitor"):
            if (process := self._processes.get(name)) is not None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
        self.kill()

    def kill(self) -> None:
        """Ends all of it as a power cut does."""
        self.client.close()
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait(STOP_SECONDS)
        self._processes.clear()

    def stop_gateway(self) -> None:
        """Connections are refused until `start_gateway`; disk and monitor stay."""
        gateway = self._processes.pop("gateway")
        gateway.kill()
        gateway.wait(STOP_SECONDS)

    def start_gateway(self) -> None:
        """Returns when it listens again."""
        self._spawn("gateway", "radosgw", "-n", "client.rgw", "-f")
        self._wait_for(lambda: _listens(self.port), "the gateway")

    def pause(self) -> None:
        """The gateway accepts connections and does not answer, until `resume`."""
        self._processes["gateway"].send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._processes["gateway"].send_signal(signal.SIGCONT)

    @cached_property
    def client(self) -> "boto3.client":
        """boto3's own client, for what a test does behind the product's back; closed by `kill`."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )

    def new_bucket(self) -> str:
        """The URL of a fresh bucket, as LUTHIER_STORAGE_URL takes it."""
        name = f"luthier-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def _prepare(self) -> None:
        for name in ("crash", "log", "mon", "osd", "rgw"):
            (self._folder / name).mkdir(parents=True)
        fsid, map_file = str(uuid.uuid4()), str(self._folder / "monmap")
        configuration = CONFIGURATION.format(
            fsid=fsid, folder=self._folder, port=self.port, monitor_port=self._monitor_port
        )
        (self._folder / "ceph.conf").write_text(configuration, encoding="utf-8")
        address = f"[v2:127.0.0.1:{self._monitor_port}]"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, map_file)
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", map_file)

    def _spawn(self, name: str, *command: str) -> None:
        with (self._folder / "log" / f"{name}.out").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests, which then stop this in their order
            )

    def _run(self, *command: str) -> str:
        """What the command printed. Every one has a timeout: without a manager some of Ceph's never answer."""
        result = subprocess.run(
            command, env=self._environment(), capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS
        )
        if result.returncode != 0:
            raise RuntimeError(f"{command[0]} {command[1]}: {result.stderr[-2000:]}")
        return result.stdout

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CEPH_CONF": str(self._folder / "ceph.conf")}

    def _wait_for(self, is_ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            dead = [name for name, process in self._processes.items() if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                raise RuntimeError(f"radosgw: {what} did not come up (ended: {dead}); see {self._folder}/log")
            time.sleep(0.5)  # to ask the monitor takes 0.15 CPU seconds


@pytest.fixture(scope="session")
def radosgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Radosgw]:
    """The session's server. Take a bucket of your own; who stops or pauses it starts it again."""
    check_radosgw()
    server = Radosgw(tmp_path_factory.mktemp("radosgw"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def check_radosgw() -> None:
    """Skips, or fails in CI, where the programs are missing."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        missing("radosgw", f"run tests/servers/install_radosgw.sh as root ({', '.join(absent)} not found)")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
