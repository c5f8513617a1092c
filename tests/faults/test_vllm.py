"""A real vLLM that dies, fills up, or finds storage away or its artifacts spoiled: what its clients see, and after."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import pytest

from tests.given.engines import greedy
from tests.given.running_service import alive, answers, kill, wait_for
from tests.servers.vllm import Vllm
from workers.jobs.agreement import Engines, EngineUnavailable

pytestmark = pytest.mark.slow

RESTART_SECONDS = 120.0
PROMPT = [70, 71, 72, 73]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    """One to break: its cache has room for four of the tests' adapters."""
    server = Vllm(tmp_path_factory.mktemp("breakable"), {"engine_cache_bytes": 2**20, "vllm_drain_seconds": 30})
    try:
        server.start()
        yield server
    finally:
        server.end()


def ask(server: Vllm, model: str, **more: object) -> httpx.Response:
    body = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0} | more
    return httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)


def said(server: Vllm, model: str) -> str:
    response = ask(server, model)
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["text"]
    return text


def expected(server: Vllm, publication: str) -> str:
    """By plain forward passes of the trainer's own libraries; vLLM leaves half a character at the end out."""
    ids = greedy(server.loaded, server.folder / publication, PROMPT, 12)
    text: str = server.loaded.tokenizer.decode(ids)
    return text.rstrip("\ufffd")


def wait_until_down(server: Vllm) -> None:
    wait_for(lambda: not answers(f"{server.url}/health"), 30, "vLLM went away")


def test_storage_that_is_away_is_a_503_and_then_works(server: Vllm) -> None:
    name = server.publish("farfaraw", 3)
    objects, away = server.folder / "objects", server.folder / "away"
    objects.rename(away)
    objects.symlink_to(objects)  # every access fails, but not as if nothing were there
    try:
        assert ask(server, name).status_code == 503
        with pytest.raises(EngineUnavailable):  # an announcement waits
            asyncio.run(Engines([server.url]).score([name], [PROMPT]))
    finally:
        objects.unlink()
        away.rename(objects)
    assert said(server, name) == expected(server, "farfaraw")


BIG: dict[str, object] = {
    "type": "lora",
    "lora": {"r": 16, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"},
}


def test_a_full_cache_is_trimmed_while_nothing_runs(server: Vllm) -> None:
    old, used = server.publish("oldadapt", 40, BIG), server.publish("usedmuch", 41, BIG)
    before = {name: said(server, name) for name in (old, used)}
    filler = [server.publish(f"filler{number:02}", 50 + number, BIG) for number in range(10)]
    [api, *_] = server.children()
    begun = threading.Event()
    refused = None
    with ThreadPoolExecutor(1) as apart:
        for name in filler:
            if name == filler[4]:
                time.sleep(1.1)
                assert said(server, used) == before[used]  # by then it is the one that was used last but the fillers
            if name == filler[-4]:
                stream = apart.submit(ends_of_a_stream, server, used, begun)
                assert begun.wait(30)
            response = ask(server, name)
            if response.status_code != 200:
                refused = name
                break
    assert refused is not None and response.status_code == 503
    assert stream.result() == ["length"] * 4
    wait_for(lambda: not alive(api), 30, "vLLM drains and ends")
    server.wait_until_ready()
    assert len(list(server.cache.iterdir())) <= 5
    cached = {path.name for path in server.cache.iterdir()}
    assert quote(old, safe="") not in cached and quote(used, safe="") in cached
    assert ask(server, refused).status_code == 200
    assert said(server, old) == before[old]
    assert said(server, used) == before[used]


def ends_of_a_stream(server: Vllm, model: str, begun: threading.Event) -> list[str]:
    """Reads four long choices to their ends, whose reasons it answers; sets `begun` at the first token."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": 230, "ignore_eos": True, "n": 4, "stream": True}
    ends = []
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: {"):
                begun.set()
                ends += [choice["finish_reason"] for choice in json.loads(line[6:])["choices"]]
    return [end for end in ends if end]


def test_a_killed_api_server_is_started_again_and_nothing_of_vllm_outlives_our_command(server: Vllm) -> None:
    """The last, since nothing is left. That what our command starts again responds is seen above and in e2e."""
    [api, *others] = server.children()
    assert others, "vLLM has processes of its own"
    kill(api)
    wait_until_down(server)
    wait_for(lambda: bool(server.children()) and not any(alive(pid) for pid in [api, *others]), 60, "vLLM begins anew")
    left = server.children()
    server.kill()
    wait_for(lambda: not any(alive(pid) for pid in left), 60, "orphans end")
