"""A tiny base with random adapters in a local store, and engines that serve them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import date
from pathlib import Path

import httpx
import torch
import uvicorn

from service.domain.model import SERVED, Manifest, ServedFiles, model_name
from service.installation.context import Context
from service.installation.storage import open_storage
from service.recipes.base import Base
from service.recipes.tuning import tuning_of
from service.settings.settings import Settings
from service.storage import ObjectStore
from service.storage.local import LocalStore
from tests.given.installation import installed
from tests.given.running_service import free_ports, write_catalogue
from tests.given.tiny_models import make_tiny_base, write_chat_template
from tests.given.tuned import tuned_logits
from workers.engines.embedded.app import create_engine_app
from workers.engines.embedded.engine import Engine, EngineLimits
from workers.files.artifacts import store_artifact
from workers.model.load import LoadedBase, load_base
from workers.toy_base.tokenizer import CHAT_TEMPLATE
from workers.tunings import create_tuning, open_tuning
from workers.tunings.lora_form import lora_form
from workers.tunings.weight_changes import WeightChanging

CPU = torch.device("cpu")
LORA = {"type": "lora", "lora": {"r": 4, "alpha": 16, "dropout": 0.1, "target_modules": "all-linear"}}
PROMPT = {"type": "prompt", "prompt": {"num_virtual_tokens": 5}}


# The bundled base's template, and the names of the functions that a request offers.
SHOWS_TOOLS = CHAT_TEMPLATE.replace(
    "{{- bos_token -}}", "{{- bos_token -}}{%- for one in tools or [] -%}{{- one.function.name -}}{%- endfor -%}", 1
)


def load_tiny(folder: Path, head_dim: int = 8, chat_template: str = CHAT_TEMPLATE) -> tuple[Base, LoadedBase]:
    """A base of its own: engines change the model in place."""
    base = make_tiny_base(folder, head_dim=head_dim).model_copy(update={"aliases": ("gpt-tiny",)})
    write_chat_template(folder, chat_template)
    return base, load_base(base, CPU)


def save_adapter(
    loaded: LoadedBase, folder: Path, seed: int, spec: dict[str, object] = LORA, serve_rank: int | None = None
) -> Path:
    """An adapter that was never trained: random numbers everywhere, also where training would begin at zero.

    With `serve_rank`, engines get it as a LoRA of that rank."""
    tuning = create_tuning(tuning_of(spec), loaded.model, "made")
    tuning.attach()
    generator = torch.Generator().manual_seed(seed)
    for parameter in tuning.parameters().values():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    folder.mkdir(parents=True)
    tuning.save(folder, loaded.public_source)
    if serve_rank is not None:
        assert isinstance(tuning, WeightChanging)
        (folder / SERVED).mkdir()
        lora_form(tuning, serve_rank).save(loaded.model, folder / SERVED, loaded.public_source)
    tuning.detach()
    return folder


async def publish(
    store: ObjectStore,
    base: Base,
    loaded: LoadedBase,
    folder: Path,
    publication: str,
    tuning: str = "lora",
    template_date: date | None = None,
) -> str:
    """Puts an adapter's folder into storage; returns its public name."""
    name = model_name(base.id, "acme", None, publication)
    converted = ServedFiles(tuning="lora", rank=1, share=1.0, files={}) if (folder / SERVED).exists() else None
    manifest = Manifest(
        name=name, job_id="ftjob-1", step=1, base=base.id, base_source=base.id, base_revision=loaded.revision,
        base_hashes=loaded.hashes, tuning=tuning, objective="supervised", hyperparameters={}, seed=0, parent=None,
        template_date=template_date, data_hashes={}, environment={}, metrics={}, files={}, created_at=1,
        served=converted,
    )  # fmt: skip
    await store_artifact(store, folder, manifest)
    return name


def local_store(folder: Path) -> ObjectStore:
    return LocalStore(folder)


@torch.no_grad()
def logits_of(loaded: LoadedBase, folder: Path | None, ids: list[int], prompt_tokens: int = 0) -> torch.Tensor:
    """Logits after every token, by one plain forward pass: no batch, no padding. Without `prompt_tokens` all are of the
    prompt."""
    ids_1T = torch.tensor([ids])
    if folder is None:
        return loaded.model(input_ids=ids_1T).logits[0]
    tuning = open_tuning(folder, loaded.model, "reference")
    tuning.activate()
    try:
        return tuned_logits(tuning, ids_1T, torch.ones_like(ids_1T), [prompt_tokens or len(ids)])[0]
    finally:
        tuning.detach()


def greedy(loaded: LoadedBase, folder: Path | None, prompt: list[int], num_tokens: int) -> list[int]:
    """What the model says, one plain forward pass per token."""
    ids = list(prompt)
    for _ in range(num_tokens):
        ids.append(int(logits_of(loaded, folder, ids, len(prompt))[-1].argmax()))
    return ids[len(prompt) :]


@asynccontextmanager
async def calling(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    """A running engine's client, without a socket."""
    transport = httpx.ASGITransport(create_engine_app(engine), raise_app_exceptions=False)
    async with engine.running(), httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        yield client


class _Quiet(uvicorn.Server):
    """Leaves the signals of the test's process alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(engine: Engine, port: int = 0) -> AsyncIterator[str]:
    """The URL of an engine that listens on loopback; on any free port, unless one is given."""
    config = uvicorn.Config(create_engine_app(engine), port=port, log_config=None, lifespan="on")
    server = _Quiet(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(task, 10)


def make_engine(base: Base, loaded: LoadedBase, folder: Path, limits: EngineLimits | None = None) -> Engine:
    """Over the store in `folder / "objects"`."""
    return Engine(base, loaded, local_store(folder / "objects"), folder / "cache", limits)


@asynccontextmanager
async def installed_with(base: Base, folder: Path) -> AsyncIterator[Context]:
    """An installation of that base alone, whose engine is to listen on a free port (`engine_of`)."""
    (port,) = free_ports(1)
    settings = Settings(
        data_dir=folder / "data",
        catalogue=write_catalogue(folder / "bases.toml", base),
        engine_urls=f"http://127.0.0.1:{port}",
        trainer_threads=1,
        lease_seconds=20,
    )
    async with installed(settings) as ctx:
        yield ctx


@asynccontextmanager
async def engine_of(ctx: Context) -> AsyncIterator[None]:
    """The engine of the installation's base, where its settings say."""
    (base,) = ctx.catalogue.bases.values()
    made = Engine(base, load_base(base, CPU), open_storage(ctx.settings), ctx.settings.data_dir / "cache")
    async with listening(made, int(ctx.engines[base.id][0].rpartition(":")[2])):
        yield
