"""Artifacts that somebody rewrote in storage, manifest and all: both engines refuse them, and continue."""

import hashlib
from pathlib import Path

import pytest

from service.domain.model import Manifest
from service.domain.storage_keys import artifact_prefix
from tests.given.engines import calling, load_tiny, local_store, make_engine, publish, save_adapter
from tests.given.hostile_adapters import REWRITTEN
from workers.engines.embedded.engine import EngineLimits
from workers.engines.vllm.fit import Unservable, check_folder

MANIFEST = "manifest.json"
SERVABLE_BY_VLLM = {"alpha of text", "targets of numbers", "rank of 0", "rank below 0"}  # its own checks refuse these


def with_true_hashes(folder: Path) -> None:
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest.files}
    (folder / MANIFEST).write_text(manifest.model_copy(update={"files": files}).model_dump_json())


async def test_the_embedded_engine_refuses_each_and_continues(tmp_path: Path) -> None:
    base, loaded = load_tiny(tmp_path / "base")
    store = local_store(tmp_path / "objects")
    names = {}
    for number, (kind, rewrite) in enumerate(REWRITTEN.items()):
        publication = f"broken{number:02}"
        names[kind] = await publish(store, base, loaded, save_adapter(loaded, tmp_path / publication, 1), publication)
        folder = tmp_path / "objects" / artifact_prefix(names[kind])
        rewrite(folder)
        with_true_hashes(folder)
    good = await publish(store, base, loaded, save_adapter(loaded, tmp_path / "good", 1), "goodgood")
    engine = make_engine(base, loaded, tmp_path, EngineLimits())
    async with calling(engine) as client:
        for kind, name in names.items():
            response = await client.post("/v1/completions", json={"model": name, "prompt": "a", "max_tokens": 1})
            assert (response.status_code, response.json()["error"]["code"]) == (503, "adapter_unusable"), kind
        assert (await client.post("/v1/completions", json={"model": good, "prompt": "a"})).status_code == 200


async def test_an_endless_manifest_is_refused_too(tmp_path: Path) -> None:
    base, loaded = load_tiny(tmp_path / "base")
    store = local_store(tmp_path / "objects")
    name = await publish(store, base, loaded, save_adapter(loaded, tmp_path / "one", 1), "giantone")
    for text in ("[" * 100_000, '{"name": "' + "x" * 5_000_000 + '"}'):
        (tmp_path / "objects" / artifact_prefix(name) / MANIFEST).write_text(text)
        async with calling(make_engine(base, loaded, tmp_path, EngineLimits())) as client:
            response = await client.post("/v1/completions", json={"model": name, "prompt": "a"})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "adapter_unusable")


@pytest.mark.parametrize("kind", [kind for kind in REWRITTEN if kind not in SERVABLE_BY_VLLM])
def test_the_plugin_refuses_each_before_vllm_reads_it(tmp_path: Path, kind: str) -> None:
    base, loaded = load_tiny(tmp_path / "base")
    folder = save_adapter(loaded, tmp_path / "adapter", 1)
    check_folder(base, folder)
    REWRITTEN[kind](folder)
    with pytest.raises(Unservable):
        check_folder(base, folder)
