"""The announcement with a real base and a real vLLM: healthy jobs of the whole product, and faults planted afterwards.

    nice -n 19 python -m benchmarks.agreement_vllm [--rows 32] > benchmarks/agreement_vllm.txt

In each number format two jobs on SmolLM2-135M train in `luthierd up`, while their engine is not there yet; then a real
vLLM starts, the jobs are announced, and their models are called. After that adapters of these jobs are published again,
each with a fault, under names of their own; the same vLLM scores the jobs' own agreement rows with them, and the
product's own comparison judges. Needs vLLM for the CPU (deploy/vllm/install_cpu.sh); fetches the base at its first run.
"""

import argparse
import asyncio
import json
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from safetensors.torch import load_file, save_file
from torch import Tensor

from examples.demo.known_base import catalogue_with, fetch
from service.domain.model import MANIFEST, Manifest
from service.domain.storage_keys import agreement_key, artifact_prefix
from service.storage.base import read
from service.storage.local import LocalStore
from tests.faults.processes import Process
from tests.given.running_service import ROOT, answers, free_ports, wait_for
from tests.servers.vllm import vllm_python
from workers.files.artifacts import store_artifact
from workers.jobs.agreement import EngineRefused, Engines
from workers.jobs.comparison import Comparison, compare
from workers.trainer.protocol import ScoredRow

ORDERS = ROOT / "examples" / "demo" / "orders" / "training.jsonl"
BASE = "smollm2-135m"
FORMATS = ("bfloat16", "float32")
ENGINE_KEY = "for-the-benchmark"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
START_SECONDS, JOB_SECONDS = 900.0, 3600.0
QUESTION = "Hi, Laura here. Please send three strap buttons to Oslo."
Tensors = dict[str, Tensor]
Change = Callable[[Tensors, dict[str, object]], Tensors]


@dataclass(frozen=True)
class Trained:
    """One job's model in storage, and the rows that its trainer has scored."""

    job_id: str
    manifest: Manifest
    rows: list[ScoredRow]
    weights: Tensors
    config: dict[str, object]


def _strength(factor: float) -> Change:
    def change(tensors: Tensors, config: dict[str, object]) -> Tensors:
        return {name: tensor * factor if "lora_B" in name else tensor for name, tensor in tensors.items()}

    return change


def _wrong_alpha(tensors: Tensors, config: dict[str, object]) -> Tensors:
    """Half of what it was trained with, in the configuration that an engine reads."""
    alpha = config["lora_alpha"]
    assert isinstance(alpha, int | float)
    config["lora_alpha"] = alpha / 2
    return tensors


def _swapped(one: str, two: str) -> Change:
    """In every layer two modules of one shape have each other's weights."""

    def change(tensors: Tensors, config: dict[str, object]) -> Tensors:
        changed = dict(tensors)
        for name in (name for name in tensors if f".{one}." in name):
            other = name.replace(f".{one}.", f".{two}.")
            changed[name], changed[other] = tensors[other].clone(), tensors[name].clone()
        assert any(changed[name] is not tensors[name] for name in tensors)
        return changed

    return change


FAULTS: Mapping[str, Change] = {
    "half its strength": _strength(0.5),
    "twice its strength": _strength(2.0),
    "a wrong alpha": _wrong_alpha,
    "keys for values": _swapped("k_proj", "v_proj"),
    "gate for up": _swapped("gate_proj", "up_proj"),
}


class Installation:
    """`luthierd up` on one catalogue, and vLLM beside it, in one folder."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.folder = folder
        self.store = LocalStore(folder / "objects")
        self._port, engine_port = free_ports(2)
        self.engine_url = f"http://127.0.0.1:{engine_port}"
        shared = {
            "LUTHIER_CATALOGUE": str(_catalogue(folder, dtype)),
            "LUTHIER_STORAGE_URL": f"file://{folder / 'objects'}",
            "LUTHIER_ENGINE_API_KEY": ENGINE_KEY,
            "LUTHIER_ENGINE_URLS": self.engine_url,
            "LUTHIER_ENGINE_PORT": str(engine_port),
            "LUTHIER_PORT": str(self._port),
        }
        vllm = {
            "LUTHIER_VLLM_PYTHON": str(vllm_python()),
            "LUTHIER_VLLM_KV_CACHE_GIB": "1",
            "PYTHONPATH": str(ROOT),  # this code, not the copy that the installer put into vLLM's environment
        }
        self.service = Process(
            "up", ["-m", "service", "up"], shared | {"LUTHIER_DATA_DIR": str(folder / "data")}, folder / "up.log"
        )
        command = ["-m", "workers", "vllm", "--base", BASE, "--", "--max-num-seqs", "16"]
        self.vllm = Process(
            "vllm", command, shared | vllm | {"LUTHIER_DATA_DIR": str(folder / "vllm")}, folder / "vllm.log"
        )

    @contextmanager
    def running(self) -> Iterator[OpenAI]:
        """The service without its engine, which a job's announcement then waits for."""
        url = f"http://127.0.0.1:{self._port}"
        self.service.start()
        try:
            wait_for(lambda: answers(f"{url}/livez"), START_SECONDS, "the API")
            key = (self.folder / "data" / "api-key").read_text(encoding="utf-8").strip()
            yield OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=8, timeout=120)
        finally:
            self.vllm.kill_all()
            self.service.kill_all()

    def start_engine(self) -> None:
        self.vllm.start()
        wait_for(lambda: answers(f"{self.engine_url}/health"), START_SECONDS, "vLLM")


def _catalogue(folder: Path, dtype: str) -> Path:
    fetched = tomllib.loads((catalogue_with(BASE) or fetch(BASE)).read_text(encoding="utf-8"))["base"]
    source = next(base["source"] for base in fetched if base["id"] == BASE)
    path = folder / "bases.toml"
    path.write_text(
        f'[[base]]\nid = "{BASE}"\nsource = "{source}"\ndtype = "{dtype}"\ncontext_tokens = 1024\n'
        'serving = { engine = "vllm", tunings = ["lora"], max_rank = 16 }\n',
        encoding="utf-8",
    )
    return path


def _training_files(folder: Path, num_rows: int) -> list[Path]:
    """Orders, and orders whose answers say only the city: two jobs that learn different things."""
    rows = [json.loads(line) for line in ORDERS.read_text(encoding="utf-8").splitlines()]
    paths = []
    for number, chosen in enumerate((rows[:num_rows], rows[num_rows : 2 * num_rows])):
        for row in chosen if number else ():
            order = json.loads(row["messages"][1]["content"])
            row["messages"][1]["content"] = f"Ship it to {order['city']}, please."
        paths.append(folder / f"training-{number}.jsonl")
        paths[-1].write_text("\n".join(map(json.dumps, chosen)), encoding="utf-8")
    return paths


def _create(client: OpenAI, path: Path) -> FineTuningJob:
    with path.open("rb") as stream:
        file = client.files.create(file=stream, purpose="fine-tune").id
    return client.fine_tuning.jobs.create(
        model=BASE,
        training_file=file,
        seed=1,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 8}}},
    )


def _wait_for_event(client: OpenAI, job_id: str, words: str) -> str:
    """The message of the job's first event that has these words."""
    deadline = time.monotonic() + JOB_SECONDS
    while True:
        events = client.fine_tuning.jobs.list_events(job_id, limit=100).data
        found = next((event.message for event in events if words in event.message), None)
        if found is not None:
            return found
        job = client.fine_tuning.jobs.retrieve(job_id)
        assert job.status not in ("failed", "cancelled"), job.error
        assert time.monotonic() < deadline, [event.message for event in events]
        time.sleep(1)


async def _trained(store: LocalStore, job_id: str, scratch: Path) -> Trained:
    """What a job has stored that waits for its engine."""
    manifests = [found.key async for found in store.list("adapters/") if found.key.endswith(f"/{MANIFEST}")]
    every = [Manifest.model_validate_json(await read(store, key)) for key in manifests]
    manifest = max((one for one in every if one.job_id == job_id), key=lambda one: one.step)
    rows = json.loads(await read(store, agreement_key(job_id, manifest.name)))
    prefix = artifact_prefix(manifest.name)
    (scratch / WEIGHTS).write_bytes(await read(store, prefix + WEIGHTS))
    return Trained(
        job_id=job_id,
        manifest=manifest,
        rows=[ScoredRow.model_validate(row) for row in rows],
        weights=load_file(scratch / WEIGHTS),
        config=json.loads(await read(store, prefix + CONFIG)),
    )


def _publish(store: LocalStore, trained: Trained, change: Change, publication: str, folder: Path) -> str:
    """The job's adapter with a fault, as an artifact that is whole; returns its name."""
    config = dict(trained.config)
    weights = change(trained.weights, config)
    folder.mkdir()
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    name = f"{trained.manifest.name.rpartition(':')[0]}:{publication}"
    asyncio.run(store_artifact(store, folder, trained.manifest.model_copy(update={"name": name, "files": {}})))
    return name


async def _judge(url: str, trained: Trained, model: str, dtype: str) -> Comparison | str:
    """What the product finds of `model`, if it is announced as the job's; or why the engine refuses to serve it."""
    engines = Engines([url], {"Authorization": f"Bearer {ENGINE_KEY}"})
    try:
        tuned, base = await engines.score([model, BASE], [row.ids for row in trained.rows])
    except EngineRefused as refusal:
        return str(refusal)
    return compare(trained.rows, tuned, base, dtype)


def _said(found: Comparison | str) -> str:
    if isinstance(found, str):
        return f"refused by the engine: {found}"
    what = f"refused, {found.verdict.value}" if found.verdict.contradicts else f"passes, {found.verdict.value}"
    return (
        f"{what}: {found.num_tokens} tokens, slope {found.slope:.3f} +- {found.slope_error:.3f}, "
        f"residual {found.residual:.2f} of {found.residual_allowed:.2f}, effect {found.trained:.3f} trained and "
        f"{found.served:.3f} served, base differs by {found.base_difference:.6f}"
    )


def _refused(found: Comparison | str) -> bool:
    return isinstance(found, str) or found.verdict.contradicts


def _measure(dtype: str, num_rows: int) -> tuple[int, int]:
    """Prints what is found in one format; returns how many of how many faults were refused."""
    with TemporaryDirectory(prefix="luthier-agreement-") as name:
        folder = Path(name)
        installation = Installation(folder, dtype)
        with installation.running() as client:
            jobs = [_create(client, path).id for path in _training_files(folder, num_rows)]
            for job in jobs:
                _wait_for_event(client, job, "waits for an engine")
            trained = [asyncio.run(_trained(installation.store, job, folder)) for job in jobs]
            installation.start_engine()
            for job in jobs:
                message = _wait_for_event(client, job, "agree with its training")
                print(f"{dtype}, healthy job, announced: {message}")
                _wait_for_event(client, job, "successfully completed")
                model = client.fine_tuning.jobs.retrieve(job).fine_tuned_model
                assert model is not None
                said = client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=40
                )
                print(f"{dtype}, its answer: {said.choices[0].message.content}")
            return _plant(installation, trained, dtype)


def _plant(installation: Installation, trained: list[Trained], dtype: str) -> tuple[int, int]:
    refused = planted = 0
    for number, ours in enumerate(trained):
        models = {"no adapter": BASE, "another adapter": trained[1 - number].manifest.name}
        for place, (fault, change) in enumerate(FAULTS.items()):
            folder = installation.folder / f"fault-{number}-{place}"
            models[fault] = _publish(installation.store, ours, change, f"fault{number}{place}x", folder)
        healthy = asyncio.run(_judge(installation.engine_url, ours, ours.manifest.name, dtype))
        assert not _refused(healthy), healthy
        print(f"{dtype}, job {number + 1}, {'healthy':20} {_said(healthy)}", flush=True)
        for fault, model in models.items():
            found = asyncio.run(_judge(installation.engine_url, ours, model, dtype))
            planted, refused = planted + 1, refused + _refused(found)
            print(f"{dtype}, job {number + 1}, {fault:20} {_said(found)}", flush=True)
    return refused, planted


def main() -> None:
    """Prints what each format's jobs and faults come to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=32, help="training rows of each job (default: %(default)s)")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    options = parser.parse_args()
    print(f"SmolLM2-135M-Instruct behind vLLM on a CPU; two jobs of {options.rows} rows in each format")
    for dtype in options.formats:
        refused, planted = _measure(dtype, options.rows)
        print(f"{dtype}: {refused} of {planted} planted faults refused, every healthy job announced\n", flush=True)


if __name__ == "__main__":
    main()
