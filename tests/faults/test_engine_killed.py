"""The engine killed while it streams: a clean error or the end; afterwards every model answers again."""

import random
import threading
import time

import pytest

from tests.faults.invariants import check_callable, wait_until_final
from tests.faults.rounds import KINDS, ROUNDS, round_seed
from tests.faults.streams import read_stream
from tests.faults.twins import Twins
from tests.production import Production

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("round_number", range(ROUNDS))]
STREAMS = 6


def test_streams_end_or_say_why_and_every_model_comes_back(
    production_set: Production, twins: Twins, round_number: int
) -> None:
    client = production_set.client()
    models = [str(wait_until_final(client, twins.create(kind)).fine_tuned_model) for kind in KINDS]
    before = {model: check_callable(client, model) for model in models}
    seed = round_seed()
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
