"""The session's vLLM dies, fills up, or finds storage down or its artifacts spoiled: what its clients see, and after.

The last file that uses it, since nothing is left of it. A start takes 28 CPU seconds.
"""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.given.engines import greedy
from tests.given.running_service import alive, answers, kill, wait_for
from tests.servers.vllm import Vllm
from workers.jobs.agreement import Engines, EngineUnavailable

pytestmark = pytest.mark.slow

PROMPT = [70, 71, 72, 73]


def ask(vllm: Vllm, model: str, **more: object) -> httpx.Response:
    body = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0} | more
    return httpx.post(f"{vllm.url}/v1/completions", json=body, timeout=60)


def said(vllm: Vllm, model: str) -> str:
    response = ask(vllm, model)
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["text"]
    return text


def expected(vllm: Vllm, publication: str) -> str:
    """By plain forward passes of the trainer's own libraries; vLLM leaves half a character at the end out."""
    ids = greedy(vllm.loaded, vllm.folder / publication, PROMPT, 12)
    text: str = vllm.loaded.tokenizer.decode(ids)
    return text.rstrip("\ufffd")


def wait_until_down(vllm: Vllm) -> None:
    wait_for(lambda: not answers(f"{vllm.url}/health"), 30, "vLLM ended")


def test_storage_that_is_away_is_a_503_and_then_works(vllm: Vllm) -> None:
    name = vllm.publish("farfaraw", 3)
    objects, elsewhere = vllm.folder / "objects", vllm.folder / "elsewhere"
    objects.rename(elsewhere)
    objects.symlink_to(objects)  # every access fails, but not as if nothing were there
    try:
        assert ask(vllm, name).status_code == 503
        with pytest.raises(EngineUnavailable):  # an announcement waits
            asyncio.run(Engines([vllm.url]).score([name], [PROMPT]))
    finally:
        objects.unlink()
        elsewhere.rename(objects)
    assert said(vllm, name) == expected(vllm, "farfaraw")


BIG: dict[str, object] = {
    "type": "lora",
    "lora": {"r": 16, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"},
}


def test_a_full_cache_is_trimmed_while_nothing_runs(vllm: Vllm) -> None:
    """Adapters are asked for until there is no room: one is used last of all before them, and a stream runs."""
    limit = int(str(vllm.settings["engine_cache_bytes"]))
    old, used = vllm.publish("oldadapt", 40, BIG), vllm.publish("usedmuch", 41, BIG)
    before = {name: said(vllm, name) for name in (old, used)}
    size = held_bytes(vllm.cache / quote(used, safe=""))
    [api, *_] = vllm.children()
    begun = threading.Event()
    stream = refused = None
    with ThreadPoolExecutor(1) as apart:
        for number in range(limit // size):
            name = vllm.publish(f"filler{number:02}", 50 + number, BIG)
            left = (limit - held_bytes(vllm.cache)) // size
            if left == 8:
                time.sleep(1.1)
                assert said(vllm, used) == before[used]  # of all that fit into half of the cache it is among the last
            if left == 2:
                stream = apart.submit(ends_of_a_stream, vllm, used, begun)
                assert begun.wait(30)
            response = ask(vllm, name)
            if response.status_code != 200:
                refused = name
                break
    assert refused is not None and response.status_code == 503
    assert stream is not None and stream.result() == ["length"] * 4
    wait_for(lambda: not alive(api), 30, "vLLM drains and ends")
    vllm.wait_until_ready()
    assert held_bytes(vllm.cache) <= limit / 2
    cached = {path.name for path in vllm.cache.iterdir()}
    assert quote(old, safe="") not in cached and quote(used, safe="") in cached
    assert ask(vllm, refused).status_code == 200
    assert said(vllm, old) == before[old]
    assert said(vllm, used) == before[used]


def held_bytes(folder: Path) -> int:
    """Of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def ends_of_a_stream(vllm: Vllm, model: str, begun: threading.Event) -> list[str]:
    """Reads four long choices to their ends, whose reasons it answers; sets `begun` at the first token."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": 230, "ignore_eos": True, "n": 4, "stream": True}
    ends = []
    with httpx.stream("POST", f"{vllm.url}/v1/completions", json=body, timeout=60) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: {"):
                begun.set()
                ends += [choice["finish_reason"] for choice in json.loads(line[6:])["choices"]]
    return [end for end in ends if end]


def test_a_killed_api_server_is_started_again_and_nothing_of_vllm_outlives_our_command(vllm: Vllm) -> None:
    """That what our command starts again responds is seen above and in e2e."""
    [api, *others] = vllm.children()
    assert others, "vLLM has processes of its own"
    kill(api)
    wait_until_down(vllm)
    wait_for(lambda: bool(vllm.children()) and not any(alive(pid) for pid in [api, *others]), 60, "vLLM begins again")
    left = vllm.children()
    vllm.kill()
    wait_for(lambda: not any(alive(pid) for pid in left), 60, "orphans end")
