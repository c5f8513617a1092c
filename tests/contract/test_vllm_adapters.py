"""Adapters in a real vLLM: whose weights answer, whose never do, and that what was refused is tried again."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from service.domain.model import MANIFEST, SERVED
from service.domain.storage_keys import artifact_prefix
from tests.given.engines import LORA, calling, logits_of, make_engine, publish, save_adapter
from tests.given.tiny_models import STRANGE, VOCABULARY
from tests.servers.vllm import Vllm
from workers.jobs.agreement import EngineRefused, Engines

pytestmark = pytest.mark.slow

PROMPTS = [[70 + number, 71, 72, 73] for number in range(12)]


def ask(vllm: Vllm, model: str, prompt: list[int] = PROMPTS[0]) -> httpx.Response:
    body = {"model": model, "prompt": prompt, "max_tokens": 12, "temperature": 0, "logprobs": 0}
    return httpx.post(f"{vllm.url}/v1/completions", json=body, timeout=60)


def choice_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    choice: dict[str, Any] = response.json()["choices"][0]
    return choice


def said(vllm: Vllm, model: str, prompt: list[int] = PROMPTS[0]) -> str:
    text: str = choice_of(ask(vllm, model, prompt))["text"]
    return text


async def test_greedy_answers_are_those_of_the_embedded_engine(vllm: Vllm, tmp_path: Path) -> None:
    names = await asyncio.to_thread(lambda: [vllm.publish(f"greedy{seed:02}", seed) for seed in (30, 31)])
    by_vllm = [choice_of(ask(vllm, model, prompt)) for model in (vllm.base.id, *names) for prompt in PROMPTS[:4]]
    engine = make_engine(vllm.base, vllm.fresh(), tmp_path)
    (tmp_path / "objects").symlink_to(vllm.folder / "objects")
    async with calling(engine) as client:
        embedded = []
        for model in (vllm.base.id, *names):
            for prompt in PROMPTS[:4]:
                body = {"model": model, "prompt": prompt, "max_tokens": 12, "temperature": 0, "logprobs": 0}
                embedded.append(choice_of(await client.post("/v1/completions", json=body)))
    whole = [[choice["text"].rstrip("\ufffd") for choice in choices] for choices in (embedded, by_vllm)]
    assert whole[0] == whole[1]  # but for half a character at the end, which vLLM leaves out
    for ours, theirs in zip(embedded, by_vllm, strict=True):
        assert theirs["logprobs"]["token_logprobs"] == pytest.approx(ours["logprobs"]["token_logprobs"], abs=1e-3)


def test_mixed_batches_give_each_row_its_own_model(vllm: Vllm) -> None:
    """More adapters than vLLM's slots, and base rows between them: without the plugin's fix these are wrong."""
    names = [vllm.publish(f"mixed{seed:03}", seed) for seed in (20, 21, 22)]
    alone = {
        (model, tuple(prompt)): said(vllm, model, prompt) for model in (vllm.base.id, *names) for prompt in PROMPTS
    }
    assert len({alone[model, tuple(PROMPTS[0])] for model in (vllm.base.id, *names)}) == 4
    asked = [pair for number, prompt in enumerate(PROMPTS)
             for pair in ((vllm.base.id, prompt), (names[number % 3], prompt))]  # fmt: skip
    for _ in range(3):
        with ThreadPoolExecutor(len(asked)) as pool:
            together = list(pool.map(lambda pair: said(vllm, *pair), asked))
        assert together == [alone[model, tuple(prompt)] for model, prompt in asked]


SCORED = [[70 + number] * (20 + 7 * number) for number in range(3)]


def scores(vllm: Vllm, model: str, *prompts: list[int]) -> list[list[float]]:
    """The log-probabilities of every prompt's tokens but the first, all asked for in one request."""
    body = {"model": model, "prompt": prompts, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    response = httpx.post(f"{vllm.url}/v1/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    found = sorted(response.json()["choices"], key=lambda choice: int(choice["index"]))
    return [choice["logprobs"]["token_logprobs"][1 : len(prompt)]
            for choice, prompt in zip(found, prompts, strict=True)]  # fmt: skip


def by_the_trainers_libraries(vllm: Vllm, folder: Path | None, prompt: list[int]) -> list[float]:
    logprobs_TV = logits_of(vllm.fresh(), folder, prompt).log_softmax(-1)
    return [float(logprobs_TV[place, token]) for place, token in enumerate(prompt[1:])]


def test_several_prompts_are_scored_in_one_request(vllm: Vllm) -> None:
    """Without the plugin's fix this one request ends vLLM."""
    name = vllm.publish("scored00", 24)
    for model, folder in ((name, vllm.folder / "scored00"), (vllm.base.id, None)):
        for prompt, found in zip(SCORED, scores(vllm, model, *SCORED), strict=True):
            assert found == pytest.approx(by_the_trainers_libraries(vllm, folder, prompt), abs=1e-3)


def test_a_prompt_is_scored_beside_requests_that_run(vllm: Vllm) -> None:
    """Of other models, too: every row gets its own."""
    names = [vllm.publish(f"beside{seed:02}", seed) for seed in (25, 26)]
    alone = {(model, number): scores(vllm, model, prompt)[0]
             for model in (vllm.base.id, *names) for number, prompt in enumerate(SCORED)}  # fmt: skip
    before = {model: said(vllm, model) for model in names}
    with ThreadPoolExecutor(12) as pool:
        running = [pool.submit(said, vllm, model) for model in names * 4]
        together = list(pool.map(lambda pair: scores(vllm, pair[0], SCORED[pair[1]])[0], alone))
        assert [one.result() for one in running] == [before[model] for model in names * 4]
    for expected, found in zip(alone.values(), together, strict=True):
        assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("publication", "settings"),
    [
        ("rsloraaa", {"r": 8, "alpha": 8, "use_rslora": True}),
        ("pissadif", {"r": 4, "alpha": 8, "init": "pissa"}),
        ("pissarsl", {"r": 4, "alpha": 8, "init": "pissa", "use_rslora": True}),
        ("ranksran", {"r": 4, "alpha": 8, "rank_pattern": {"q_proj": 8}, "alpha_pattern": {"layers.0.mlp.up_proj": 2}}),
    ],
)
def test_every_setting_of_lora_is_scored_as_the_trainer_does(
    vllm: Vllm, publication: str, settings: dict[str, Any]
) -> None:
    name = vllm.publish(publication, 40, {"type": "lora", "lora": settings})
    [found] = scores(vllm, name, SCORED[0])
    assert found == pytest.approx(by_the_trainers_libraries(vllm, vllm.folder / publication, SCORED[0]), abs=1e-3)
    assert found != pytest.approx(by_the_trainers_libraries(vllm, None, SCORED[0]), abs=1e-3)


@pytest.mark.parametrize(
    ("publication", "kind", "settings"),
    [
        ("verasame", "vera", {"r": 8}),
        ("misssame", "miss", {"r": 4}),
        ("partlast", "partial", {"parameters": ["layers.1.mlp.down_proj"]}),
    ],
)
def test_a_tuning_that_vllm_has_not_is_served_as_a_lora(
    vllm: Vllm, publication: str, kind: str, settings: dict[str, Any]
) -> None:
    name = vllm.publish(publication, 41, {"type": kind, kind: settings}, serve_rank=16)
    [found] = scores(vllm, name, SCORED[0])
    folders = (vllm.folder / publication / SERVED, vllm.folder / publication)
    served, trained, base = (by_the_trainers_libraries(vllm, folder, SCORED[0]) for folder in (*folders, None))
    assert found == pytest.approx(served, abs=1e-3) and found != pytest.approx(base, abs=1e-3)
    if kind != "partial":  # the rank is that of what was trained
        assert found == pytest.approx(trained, abs=1e-3)


@pytest.mark.parametrize(
    "name",
    ["ft:tiny:acme::nobody00", "../dialect0", "/etc", "ft:tiny:acme::..%2Fobjects", "ft:tiny:acme:../x:abcdefgh"],
)
def test_what_is_no_name_of_a_model_is_not_found(vllm: Vllm, name: str) -> None:
    assert ask(vllm, name).status_code == 404


def test_a_path_to_an_adapter_is_no_name(vllm: Vllm) -> None:
    name = vllm.publish("pathpath", 1)
    said(vllm, name)
    [folder] = [path for path in vllm.cache.iterdir() if "pathpath" in path.name]
    for path in (str(folder), f"../adapters/{folder.name}", folder.name, quote(folder.name, safe="")):
        assert ask(vllm, path).status_code == 404, path


def test_routes_that_load_folders_are_closed(vllm: Vllm) -> None:
    vllm.publish("routeaaa", 1)
    body = {"lora_name": "x", "lora_path": str(vllm.folder / "routeaaa")}
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/invocations"):
        assert httpx.post(f"{vllm.url}{path}", json=body, timeout=10).status_code == 404, path
    assert ask(vllm, "x").status_code == 404


def test_a_corrupt_artifact_never_serves_and_is_tried_again(vllm: Vllm) -> None:
    name = vllm.publish("corrupt0", 2)
    weights = vllm.folder / "objects" / artifact_prefix(name) / "adapter_model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    refused = ask(vllm, name)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "adapter_unusable")
    weights.write_bytes(good)
    assert said(vllm, name) != said(vllm, vllm.base.id)


def test_an_artifact_without_its_manifest_does_not_exist(vllm: Vllm) -> None:
    name = vllm.publish("noletter", 3)
    (vllm.folder / "objects" / artifact_prefix(name) / MANIFEST).unlink()
    assert ask(vllm, name).status_code == 404


def of_another_base(vllm: Vllm, folder: Path) -> str:
    other = vllm.base.model_copy(update={"id": "other"})
    return asyncio.run(publish(vllm.store, other, vllm.loaded, folder, "otherbas"))


def of_another_tuning(vllm: Vllm, folder: Path) -> str:
    return asyncio.run(publish(vllm.store, vllm.base, vllm.loaded, folder, "othertun", "prompt"))


def configured(publication: str, **changes: object) -> Callable[[Vllm, Path], str]:
    def make(vllm: Vllm, folder: Path) -> str:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))
        return asyncio.run(publish(vllm.store, vllm.base, vllm.loaded, folder, publication))

    return make


def with_output_layer(vllm: Vllm, folder: Path) -> str:
    path, rank = folder / "adapter_model.safetensors", 4
    hidden, vocabulary = vllm.loaded.model.config.hidden_size, vllm.loaded.model.config.vocab_size
    added = {"lora_A": torch.ones(rank, hidden), "lora_B": torch.ones(vocabulary, rank)}
    save_file(load_file(path) | {f"base_model.model.lm_head.{name}.weight": w for name, w in added.items()}, path)
    return configured("outputla", target_modules=["q_proj", "lm_head"])(vllm, folder)


@pytest.mark.parametrize(
    "make",
    [
        of_another_base,
        of_another_tuning,
        configured("doradora", use_dora=True),
        configured("biasbias", bias="all"),
        configured("rankrank", r=32),
        configured("patterns", rank_pattern={"q_proj": 17}),
        configured("pissapis", init_lora_weights="pissa"),
        configured("prefixty", peft_type="PREFIX_TUNING"),
        configured("tokentok", trainable_token_indices=[1]),
        with_output_layer,
    ],
)
def test_what_this_vllm_cannot_serve_is_refused_and_it_lives_on(
    vllm: Vllm, tmp_path: Path, make: Callable[[Vllm, Path], str]
) -> None:
    name = make(vllm, save_adapter(vllm.loaded, tmp_path / "adapter", 4, LORA))
    response = ask(vllm, name)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "adapter_unusable")
    with pytest.raises(EngineRefused):
        asyncio.run(Engines([vllm.url]).score([name], PROMPTS[:1]))
    said(vllm, vllm.base.id)


def test_a_token_that_the_weights_do_not_know_is_refused_and_it_lives_on(vllm: Vllm) -> None:
    """By default vLLM computes on what its embedding holds behind the vocabulary, as if that meant something."""
    chat = {"messages": [{"role": "user", "content": f"What is {STRANGE}?"}]}
    for path, body in (("chat/completions", chat), ("completions", {"prompt": STRANGE}),
                       ("completions", {"prompt": [70, VOCABULARY]})):  # fmt: skip
        response = httpx.post(
            f"{vllm.url}/v1/{path}", json={"model": vllm.base.id, "max_tokens": 1, **body}, timeout=60
        )
        assert response.status_code == 400, response.text
        assert f"only for tokens below {VOCABULARY}" in response.json()["error"]["message"]
    said(vllm, vllm.base.id)
