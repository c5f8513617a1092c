"""A real vLLM behind our own command, on a tiny base and a store in a folder of its own."""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from service.recipes.base import Base, Serving
from service.storage import ObjectStore
from tests.given.engines import CPU, LORA, SHOWS_TOOLS, load_tiny, local_store, publish, save_adapter
from tests.given.running_service import ROOT, answers, descendants, free_ports, kill, wait_for
from tests.given.tiny_models import add_unknown_token
from tests.servers import missing
from workers.model.load import LoadedBase, load_base

START_SECONDS = 180.0
STOP_SECONDS = 60.0
HEAD_DIM = 32  # vLLM has no smaller attention on a CPU
INSTALLED = Path(".cache/vllm/bin/python")
# The engine's own process computes, as vLLM does it on one GPU. On CPUs it would start one more process, whose imports
# take 9 CPU seconds, and which waits for steps by spinning.
ONE_PROCESS = "--distributed-executor-backend vllm.v1.executor.uniproc_executor.UniProcExecutor"


def vllm_python() -> Path:
    """Python of vLLM's environment, from LUTHIER_VLLM_PYTHON or where the installer puts it."""
    python = Path(os.environ.get("LUTHIER_VLLM_PYTHON", ROOT / INSTALLED))
    if not python.exists():
        missing("vLLM", "run deploy/vllm/install_cpu.sh, or set LUTHIER_VLLM_PYTHON")
    return python


@dataclass
class Vllm:
    """`luthier-worker vllm` in one folder: `base` is its catalogue's only one, adapters come from `store`."""

    folder: Path
    settings: dict[str, object] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    killed: bool = False

    def __post_init__(self) -> None:
        self.python = vllm_python()
        self.folder.mkdir(parents=True, exist_ok=True)
        [self.port] = free_ports(1)
        base, _ = load_tiny(self.folder / "base", HEAD_DIM, SHOWS_TOOLS)
        add_unknown_token(self.folder / "base")
        self.loaded = load_base(base, CPU)
        serving = Serving(engine="vllm", tunings=frozenset({"lora"}), max_rank=16, tool_call_parser="hermes")
        self.base = base.model_copy(update={"serving": serving, "learning_rate": {"lora": 1e-2}})
        self.catalogue = write_vllm_catalogue(self.folder / "bases.toml", self.base)

    base: Base = field(init=False)
    loaded: LoadedBase = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def store(self) -> ObjectStore:
        return local_store(self.folder / "objects")

    @property
    def cache(self) -> Path:
        return self.folder / "data" / "scratch" / f"vllm-{self.port}" / "adapters"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Returns when it answers."""
        command = f"-m workers vllm --base {self.base.id} --die-with-parent -- --max-num-seqs 16 {ONE_PROCESS}"
        with (self.folder / "log").open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, *command.split()],
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.PIPE,  # its end shows that the tests have ended, however they did
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        assert self.process is not None
        process = self.process
        ready = f"{self.url}/health"
        wait_for(lambda: process.poll() is not None or answers(ready), START_SECONDS, f"vLLM at {self.url}")
        assert process.poll() is None, self.log[-4000:]

    def stop(self) -> int:
        """As an operator would; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS)
        self._let_go()
        return code

    def kill(self) -> None:
        """SIGKILL of our command alone: the rest must end by itself."""
        assert self.process is not None
        self.killed = True
        self.process.kill()
        self.process.wait(10)
        self._let_go()

    def publish(
        self, publication: str, seed: int, spec: dict[str, object] = LORA, serve_rank: int | None = None
    ) -> str:
        """Puts a random adapter into storage; returns its name. May be called while vLLM runs."""
        folder = save_adapter(self.loaded, self.folder / publication, seed, spec, serve_rank)
        return asyncio.run(publish(self.store, self.base, self.loaded, folder, publication, str(spec["type"])))

    def fresh(self) -> LoadedBase:
        """The base, loaded again: engines change the model that they get."""
        return load_base(self.base, CPU)

    def children(self) -> list[int]:
        """vLLM's own processes, its API server first."""
        assert self.process is not None
        return descendants(self.process.pid)

    def end(self) -> None:
        """Whatever is left, by pid."""
        if self.process is not None:
            for pid in [self.process.pid, *descendants(self.process.pid)]:
                kill(pid)
            self.process.wait(10)
            self._let_go()

    def _let_go(self) -> None:
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.close()

    def _environment(self) -> dict[str, str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith(("LUTHIER_", "VLLM_"))}
        settings: dict[str, object] = {
            "data_dir": self.folder / "data",
            "storage_url": f"file://{self.folder / 'objects'}",
            "catalogue": self.catalogue,
            "engine_port": self.port,
            "engine_api_key": "off",
            "vllm_python": self.python,
            "vllm_kv_cache_gib": 1,
            "vllm_max_loras": 2,  # fewer than the tests use at once: they change places
            **self.settings,
        }
        named = {f"LUTHIER_{name.upper()}": str(value) for name, value in settings.items()}
        # The code under test, not the copy that the installer put into vLLM's environment.
        return others | named | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def write_vllm_catalogue(path: Path, base: Base) -> Path:
    """A catalogue with this one base, served by vLLM."""
    path.write_text(
        f'[[base]]\nid = "{base.id}"\naliases = {list(base.aliases)}\nsource = "{base.source}"\n'
        f'dtype = "{base.dtype}"\ncontext_tokens = {base.context_tokens}\nlearning_rate = {{ lora = 1e-2 }}\n'
        f'serving = {{ engine = "vllm", tunings = ["lora"], max_rank = {base.serving.max_rank}, '
        f'tool_call_parser = "{base.serving.tool_call_parser}" }}\n',
        encoding="utf-8",
    )
    return path
