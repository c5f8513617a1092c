"""Adapters by name: fetched once, held while used, evicted, reloaded, and never served when anything is wrong."""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors import safe_open

from service.domain.storage_keys import artifact_prefix
from service.recipes.base import Base
from tests.given.engines import (
    CPU,
    LORA,
    PROMPT,
    calling,
    greedy,
    load_tiny,
    local_store,
    make_engine,
    publish,
    save_adapter,
)
from workers.engines.embedded.engine import EngineLimits
from workers.model.load import LoadedBase, load_base

pytestmark = pytest.mark.slow

PROMPT_TEXT = "Once upon a time"
NUM_TOKENS = 10


class Shop:
    """A base, three adapters of it in storage, and what each says by a plain forward pass."""

    def __init__(self, root: Path, base: Base, loaded: LoadedBase, says: dict[str, str]) -> None:
        self.root, self.base, self.loaded, self.says = root, base, loaded, says

    async def stock(self) -> "Shop":
        self.says["tiny"] = self._reference(None)
        for publication, seed, spec in (("loraaaaa", 1, LORA), ("lorabbbb", 2, LORA), ("promptcc", 3, PROMPT)):
            folder = save_adapter(self.loaded, self.root / publication, seed, spec)
            name = await publish(local_store(self.objects), self.base, self.loaded, folder, publication)
            self.says[name] = self._reference(folder)
        assert len(set(self.says.values())) == 4
        return self

    @property
    def objects(self) -> Path:
        return self.root / "objects"

    @property
    def adapters(self) -> list[str]:
        return [name for name in self.says if name != "tiny"]

    def calling(self, limits: EngineLimits | None = None, **changes: Any) -> Any:
        base, loaded = changes.get("base", self.base), changes.get("loaded", self.loaded)
        return calling(make_engine(base, loaded, self.root, limits))

    def _reference(self, folder: Path | None) -> str:
        ids = greedy(self.loaded, folder, self.loaded.tokenizer.encode(PROMPT_TEXT), NUM_TOKENS)
        end = ids.index(2) if 2 in ids else len(ids)
        text: str = self.loaded.tokenizer.decode(ids[:end], skip_special_tokens=True)
        return text


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """What every test gets a copy of."""
    root = tmp_path_factory.mktemp("stocked")
    return asyncio.run(Shop(root, *load_tiny(root / "base"), {}).stock())


@pytest.fixture
def shop(stocked: Shop, tmp_path: Path) -> Shop:
    """Its own to break: files and weights."""
    root = tmp_path / "shop"
    shutil.copytree(stocked.root, root)
    base = stocked.base.model_copy(update={"source": str(root / "base")})
    return Shop(root, base, load_base(base, CPU), stocked.says)


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with shop.calling() as client:
        yield client


async def ask(client: httpx.AsyncClient, model: str, **more: Any) -> httpx.Response:
    body = {"model": model, "prompt": PROMPT_TEXT, "max_tokens": NUM_TOKENS, "temperature": 0} | more
    return await client.post("/v1/completions", json=body)


async def text(client: httpx.AsyncClient, model: str) -> str:
    response = await ask(client, model)
    assert response.status_code == 200, response.text
    answer: str = response.json()["choices"][0]["text"]
    return answer


async def metric(client: httpx.AsyncClient, name: str) -> int:
    lines = (await client.get("/metrics")).text.splitlines()
    return next(int(float(line.split()[-1])) for line in lines if line.startswith(f"luthier_engine_{name}{{"))


async def test_every_model_answers_as_itself_in_one_batch(shop: Shop, client: httpx.AsyncClient) -> None:
    names = [*shop.says] * 3
    assert await asyncio.gather(*(text(client, name) for name in names)) == [shop.says[name] for name in names]
    assert await metric(client, "adapter_loads_total") == 3  # each name once, though three asked at the same time


async def test_evicted_adapter_is_loaded_again_when_it_is_asked_for(shop: Shop) -> None:
    async with shop.calling(EngineLimits(resident_adapters=1)) as client:
        for name in [*shop.adapters, *shop.adapters, "tiny"]:
            assert await text(client, name) == shop.says[name]
        assert await metric(client, "adapter_evictions_total") == 5
        assert await metric(client, "adapters_resident") == 1


async def test_memory_for_adapters_is_counted_before_they_are_attached(shop: Shop) -> None:
    lora, other, prompt = shop.adapters
    with safe_open(shop.root / "loraaaaa" / "adapter_model.safetensors", framework="pt") as weights:
        one = sum(weights.get_tensor(name).nbytes for name in weights.keys())  # noqa: SIM118
    async with shop.calling(EngineLimits(adapter_bytes=one + 5 * 32 * 4)) as client:
        for name in (lora, prompt, lora, prompt):
            assert await text(client, name) == shop.says[name]
        assert await metric(client, "adapter_evictions_total") == 0
        assert await text(client, other) == shop.says[other]
        assert await metric(client, "adapter_evictions_total") == 1
    async with shop.calling(EngineLimits(adapter_bytes=one - 1)) as client:
        assert (await ask(client, lora)).status_code == 503
        assert await text(client, prompt) == shop.says[prompt]


async def test_least_recently_used_adapter_leaves_first(shop: Shop) -> None:
    first, second, third = shop.adapters
    async with shop.calling(EngineLimits(resident_adapters=2)) as client:
        for name in (first, second, first, third):
            await text(client, name)
        models = (await client.get("/v1/models")).json()["data"]
        assert {model["id"] for model in models if model["parent"]} == {first, third}


async def test_adapter_in_use_is_not_evicted(shop: Shop) -> None:
    first, second, _ = shop.adapters
    engine = make_engine(shop.base, shop.loaded, shop.root, EngineLimits(resident_adapters=1))
    async with engine.running():
        async with engine.residents.hold(first):
            newcomer = asyncio.create_task(engine.residents.hold(second).__aenter__())
            await asyncio.wait([newcomer], timeout=0.5)
            assert not newcomer.done()
            assert engine.residents.names == [first]
        await asyncio.wait_for(newcomer, 30)
        assert engine.residents.names == [second]


async def test_hang_up_while_loading_leaves_the_adapter_to_the_others(shop: Shop) -> None:
    name = shop.adapters[0]
    engine = make_engine(shop.base, shop.loaded, shop.root)
    async with engine.running():
        leaving, staying = (asyncio.create_task(engine.residents.hold(name).__aenter__()) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait_for(staying, 30)
        assert leaving.cancelled()
        assert engine.residents.num_loads == 1


async def test_many_models_share_one_place_in_memory(shop: Shop) -> None:
    async with shop.calling(EngineLimits(resident_adapters=1)) as client:
        answers = await asyncio.gather(*(text(client, name) for name in [*shop.adapters] * 4))
        assert answers == [shop.says[name] for name in [*shop.adapters] * 4]


async def test_unknown_name_is_not_found_and_later_published_one_is(shop: Shop, client: httpx.AsyncClient) -> None:
    name = "ft:tiny:acme::newnewne"
    for _ in range(2):
        response = await ask(client, name)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    await publish(local_store(shop.objects), shop.base, shop.loaded, shop.root / "loraaaaa", "newnewne")
    assert await text(client, name) == shop.says[shop.adapters[0]]


async def test_damaged_artifact_is_never_served(
    shop: Shop, client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    name, other, _ = shop.adapters
    weights = shop.objects / artifact_prefix(name) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-8]):
        weights.write_bytes(damaged)
        response = await ask(client, name)
        assert (response.status_code, response.json()["error"]["type"]) == (503, "server_error")
        assert "adapter.unusable" in capsys.readouterr().out
    weights.unlink()
    assert (await ask(client, name)).status_code == 503
    assert await text(client, other) == shop.says[other]
    weights.write_bytes(whole)
    assert await text(client, name) == shop.says[name]


async def test_artifact_that_does_not_fit_the_model_is_never_served(shop: Shop, client: httpx.AsyncClient) -> None:
    folder = save_adapter(shop.loaded, shop.root / "short", 5)
    (folder / "adapter_model.safetensors").write_bytes(
        (shop.root / "promptcc" / "adapter_model.safetensors").read_bytes()
    )
    name = await publish(local_store(shop.objects), shop.base, shop.loaded, folder, "wrongone")
    assert (await ask(client, name)).status_code == 503
    assert await text(client, "tiny") == shop.says["tiny"]
    assert await text(client, shop.adapters[0]) == shop.says[shop.adapters[0]]


async def test_unavailable_storage_is_503_and_the_disk_cache_still_serves(shop: Shop) -> None:
    name, other, _ = shop.adapters
    async with shop.calling() as client:
        await text(client, name)
    elsewhere = shop.root / "elsewhere"
    shop.objects.rename(elsewhere)
    shop.objects.symlink_to(shop.objects)  # a loop: the system refuses every call
    async with shop.calling() as client:
        assert await text(client, name) == shop.says[name]
        assert (await ask(client, other)).status_code == 503
        shop.objects.unlink()
        elsewhere.rename(shop.objects)
        assert await text(client, other) == shop.says[other]


async def test_damaged_copy_on_disk_is_fetched_again(shop: Shop) -> None:
    name = shop.adapters[0]
    async with shop.calling() as client:
        await text(client, name)
    [weights] = (shop.root / "cache").glob("*/adapter_model.safetensors")
    weights.write_bytes(hashlib.sha256(b"").digest())
    async with shop.calling() as client:
        assert await text(client, name) == shop.says[name]


async def test_disk_cache_stays_within_its_bytes(shop: Shop) -> None:
    async with shop.calling(EngineLimits(cache_bytes=1)) as client:
        for name in shop.adapters:
            assert await text(client, name) == shop.says[name]
        assert list((shop.root / "cache").iterdir()) == []
    one = sum(file.stat().st_size for file in (shop.objects / artifact_prefix(shop.adapters[0])).iterdir())
    async with shop.calling(EngineLimits(cache_bytes=2 * one)) as client:
        for name in shop.adapters:
            await text(client, name)
        assert len(list((shop.root / "cache").iterdir())) == 2


async def test_adapter_of_another_base_is_not_found(shop: Shop) -> None:
    async with shop.calling(base=shop.base.model_copy(update={"id": "other"})) as client:
        response = await ask(client, shop.adapters[0])
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


async def test_adapter_of_other_weights_under_the_same_id_is_not_served(shop: Shop) -> None:
    changed = replace(shop.loaded, hashes=shop.loaded.hashes | {"weights": "0" * 64})
    async with shop.calling(loaded=changed) as client:
        assert (await ask(client, shop.adapters[0])).status_code == 503


async def test_virtual_tokens_count_towards_the_context(shop: Shop, client: httpx.AsyncClient) -> None:
    prompt_tuned = shop.adapters[2]
    assert (await ask(client, prompt_tuned, prompt="x" * 251, max_tokens=0)).status_code == 200
    response = await ask(client, prompt_tuned, prompt="x" * 252, max_tokens=0)
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert "5 of which" in response.json()["error"]["message"]
    assert (await ask(client, shop.adapters[0], prompt="x" * 252, max_tokens=0)).status_code == 200
