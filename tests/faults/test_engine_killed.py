"""The engine killed while it streams: a clean error or the end; afterwards every model answers again."""

import random
import threading
import time

import openai
import pytest

from tests.faults.invariants import check_callable, wait_until_final
from tests.faults.rounds import KINDS, ROUNDS, random_seed
from tests.faults.twins import Twins
from tests.production import Production

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("round_number", range(ROUNDS))]
STREAMS = 6


def read_stream(production: Production, model: str, ends: list[str]) -> None:
    """One stream to its end; notes how it ended. Anything but an end or a clean error is noted as `broken`."""
    client = production.client(retries=0)
    try:
        stream = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "0 red?"}], max_tokens=200, temperature=1, stream=True
        )
        finished = [chunk.choices[0].finish_reason for chunk in stream if chunk.choices]
        ends.append("ended" if finished and finished[-1] in ("stop", "length") else "broken: no finish_reason")
    except openai.APIStatusError as error:
        ends.append("clean error" if error.status_code == 503 else f"broken: {error.status_code}")
    except openai.APIError as error:  # an error event in the stream
        ends.append("clean error" if error.body else f"broken: {error}")


def test_streams_end_or_say_why_and_every_model_comes_back(
    production_set: Production, twins: Twins, round_number: int
) -> None:
    client = production_set.client()
    models = [str(wait_until_final(client, twins.create(kind)).fine_tuned_model) for kind in KINDS]
    before = {model: check_callable(client, model) for model in models}
    seed = random_seed()
    numbers = random.Random(seed)
    moment = numbers.uniform(0, 0.6)
    print(f"engine: seed {seed}, {moment:.2f} s after the streams' begin")  # noqa: T201
    ends: list[str] = []
    streams = [
        threading.Thread(target=read_stream, args=(production_set, numbers.choice(models), ends))
        for _ in range(STREAMS)
    ]
    for stream in streams:
        stream.start()
    time.sleep(moment)
    production_set.engine.kill_all()
    for stream in streams:
        stream.join(30)
    assert not any(stream.is_alive() for stream in streams), "a stream hangs"
    assert len(ends) == STREAMS
    assert set(ends) <= {"ended", "clean error"}, ends
    production_set.forget_engine_cache()
    production_set.engine.start()
    production_set.wait_ready()
    assert {model: check_callable(client, model) for model in models} == before
